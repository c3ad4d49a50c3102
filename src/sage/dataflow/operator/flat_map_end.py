"""A flat map whose function puts something out when its input has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sage.dataflow.function.spec import FunctionSpec
from sage.dataflow.function.transform import ListCollector
from sage.dataflow.key_group import WHOLE, Share
from sage.dataflow.operator.at_end import HeldEnd, has_end
from sage.dataflow.operator.base import LiveContext, LivePart
from sage.dataflow.operator.record_wise import FlatMap
from sage.dataflow.time import MAX_WATERMARK


def flat_map_of(specs: tuple[FunctionSpec, ...]) -> FlatMap:
    """Return the flat map that calls these functions, also at the end if one of them wants it."""
    classes = [spec.function_class for spec in specs]
    return EndingFlatMap(specs) if any(map(has_end, classes)) else FlatMap(specs)


@dataclass(frozen=True, eq=False)
class EndingFlatMap(FlatMap):
    """A flat map whose function puts something out at the end."""

    @property
    def holds_time(self) -> bool:
        """Whether event time behind it is its own."""
        return True

    def create_live(self, context: LiveContext) -> LivePart:
        """Make what calls the function at the end."""
        return FlatMapEnd(context)


class FlatMapEnd(LivePart):
    """Calls a flat map's function at the end of its input.

    Args:
        context: What it is made with.
    """

    puts_out_at_end = True

    def __init__(self, context: LiveContext) -> None:
        self._results = context.results
        self._functions = [f for f in context.functions if has_end(type(f))]
        self._held = HeldEnd(context.timed)

    def advance(self, watermark: int) -> None:
        """Let event time through, but for its end."""
        self._held.advance(watermark)
        self.released = self._held.released

    def end(self) -> None:
        """Put out what the function gives now."""
        for function in self._functions:
            for item in _given_at_end(function):
                self._results.emit(item, self._held.timestamp())
        self.released = MAX_WATERMARK

    def full_state(self) -> Any:
        """Return how far event time has come behind it."""
        return self.released

    take_changes = full_state

    def load(self, parts: Sequence[Sequence[Any]], share: Share = WHOLE) -> None:
        """Let event time be where it was."""
        self.released = self._held.released = min(part[-1] for part in parts)


def _given_at_end(function: Any) -> Iterator[Any]:
    """Yield what a function collects, and what it returns, in order."""
    on_end: Callable[[], Iterable[Any] | None] = function.on_end
    out = getattr(function, "out", None)
    take = out.take if isinstance(out, ListCollector) else list[Any]
    for item in on_end() or ():
        yield from take()
        yield item
    yield from take()
