"""What functions put out when their input has ended: `on_end`.

Event time behind an operator whose function does so is held back at its end, and no record of that
moment is late: it has the time just after the last one that has been let through.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sage.dataflow.function.broadcast import BroadcastProcessFunction
from sage.dataflow.function.transform import (
    CoFlatMapFunction,
    CoProcessFunction,
    FlatMapFunction,
    ProcessFunction,
)
from sage.dataflow.time import MAX_WATERMARK, MIN_WATERMARK

_DEFAULTS: Final = tuple(
    cls.on_end
    for cls in (
        FlatMapFunction,
        CoFlatMapFunction,
        ProcessFunction,
        CoProcessFunction,
        BroadcastProcessFunction,
    )
)


def has_end(cls: type) -> bool:
    """Say whether the functions of a class put something out at the end."""
    own = getattr(cls, "on_end", None)
    return callable(own) and own not in _DEFAULTS


@dataclass
class HeldEnd:
    """How far event time has come behind an operator that puts something out at the end.

    Attributes:
        timed: Whether there is any.
        released: How far it has come.
    """

    timed: bool
    released: int = MIN_WATERMARK

    def advance(self, watermark: int) -> None:
        """Let event time through, but for its end."""
        if watermark < MAX_WATERMARK:
            self.released = watermark

    def timestamp(self) -> int | None:
        """Return the event time of what goes out at the end: it is not late, whatever comes."""
        if not self.timed:
            return None
        return 0 if self.released == MIN_WATERMARK else self.released + 1
