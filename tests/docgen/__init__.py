"""Writes the pages of `docs/` that are generated from code: `python -m docgen`, or `make docs`.

The pages are committed, so that people can read them on the forge. A test compares them with the code.
The package is no part of the worker: neither the wheel nor the image holds it.
"""
