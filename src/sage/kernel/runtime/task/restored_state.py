"""What an operator finds of an earlier attempt, and what a sink has still to commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sage.dataflow.function.sink import SinkWriter, TwoPhaseWriter
from sage.dataflow.key_group import WHOLE, Share


@dataclass
class RestoredState:
    """What an operator finds when it is opened again.

    Attributes:
        parts: What was kept of keys, timers and the like, by each subtask of before that had something
            of what belongs here: a full part, then what changed.
        share: What of these parts belongs here.
        said: What is settled already, by name: where sources go on, how far event time has come.
        uncommitted: What is to be committed, each by the number of its checkpoint.
    """

    parts: Sequence[list[dict[str, Any]]] = ()
    share: Share = WHOLE
    said: Mapping[str, Any] = field(default_factory=dict)
    uncommitted: Sequence[Mapping[int, Any]] = ()

    def last(self, name: str) -> Any:
        """Return what is settled about `name`; None if nothing is."""
        return self.said.get(name)

    def chains(self, name: str) -> list[list[Any]]:
        """Return what each part says about `name`, in order, and forget it: it may be large."""
        chains = [[content.pop(name) for content in part if name in content] for part in self.parts]
        return [chain for chain in chains if chain]


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
