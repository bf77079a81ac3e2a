"""Cells: one Valkey and its workers each. A request belongs to the cell that the hash of its tenant and id names."""

import hashlib


def cell_of(tenant: str, request_id: str, cells: int) -> int:
    """The index of the cell: the one whose SHA-256 of `<index>:<tenant>:<request_id>` is the largest.

    So all services that list the same cells in the same order agree, and a cell that is added at the end of the list
    takes an equal share of the ids from each of the others and moves no other id.
    """
    if cells == 1:
        return 0
    return max(range(cells), key=lambda index: hashlib.sha256(f"{index}:{tenant}:{request_id}".encode()).digest())
