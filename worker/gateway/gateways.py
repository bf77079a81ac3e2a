"""The gateways of all routes: each call goes by the one that admission chose, under the model's name there."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import orjson

from worker.gateway.members import replaced
from worker.gateway.upstream import Call, Upstream


@dataclass(frozen=True, slots=True)
class Gateways:
    """`renamed` has, by route, the names there of models that have another one."""

    upstreams: Mapping[str, Upstream]
    renamed: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])

    async def create(
        self,
        body: bytes,
        *,
        route: str,
        model: str,
        stream: bool,
        timeout_s: float,
        on_event: Callable[[bytes], None] | None = None,
    ) -> Call:
        """One call by `route`, as `Upstream.create` makes it; only the model's name in `body` may be another."""
        name = self.renamed.get(route, {}).get(model, model)
        sent = body if name == model else _named(body, name)
        return await self.upstreams[route].create(sent, stream=stream, timeout_s=timeout_s, on_event=on_event)

    async def aclose(self) -> None:
        """Closes every connection of every route."""
        await asyncio.gather(*(upstream.aclose() for upstream in self.upstreams.values()))


def _named(body: bytes, model: str) -> bytes:
    """The same body for a model of another name; every other byte stays."""
    return replaced(body, {"model": orjson.dumps(model)})
