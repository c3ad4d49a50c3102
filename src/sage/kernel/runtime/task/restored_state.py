"""What an operator finds of an earlier attempt, and what a sink has still to commit."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sage.dataflow.function.sink import SinkWriter, TwoPhaseWriter


@dataclass
class RestoredState:
    """What an operator finds when it is opened again.

    Attributes:
        contents: What was pickled, the full part first.
    """

    contents: Sequence[dict[str, Any]] = ()

    @classmethod
    def of(cls, parts: Iterable[bytes]) -> RestoredState:
        """Unpickle a chain of parts, whose checksums have been verified."""
        return cls([pickle.loads(part) for part in parts])  # noqa: S301 - our own files, verified

    def last(self, name: str) -> Any:
        """Return what the newest part says about `name`; None if it says nothing."""
        for content in reversed(self.contents):
            if name in content:
                return content[name]
        return None

    def chain(self, name: str) -> list[Any]:
        """Return what all parts say about `name`, in order, and forget it: it may be large."""
        return [content.pop(name) for content in self.contents if name in content]


@dataclass
class Uncommitted:
    """What a two-phase writer has prepared and not been told to commit yet, by checkpoint."""

    prepared: dict[int, Any] = field(default_factory=dict)

    def commit(self, writer: SinkWriter[Any], up_to: int) -> None:
        """Commit what belongs to checkpoints up to `up_to`, the oldest first."""
        if not isinstance(writer, TwoPhaseWriter):
            return
        for number in sorted(n for n in self.prepared if n <= up_to):
            writer.commit(self.prepared[number])
            del self.prepared[number]
