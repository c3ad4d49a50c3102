"""What the API records: an append-only list of transformations, each naming its inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sage.common.config import ErrorPolicy
from sage.common.errors import GraphError
from sage.dataflow.operator.base import Operator
from sage.dataflow.operator.record_wise import LoopHead


@dataclass(frozen=True)
class Partitioning:
    """How the records of an edge are spread over the subtasks at its end.

    Attributes:
        kind: The way they are spread.
        function: With `"custom"`: `function(record, parallelism)` returns the subtask's index.
    """

    kind: Literal["forward", "hash", "rebalance", "rescale", "broadcast", "custom"] = "forward"
    function: Callable[[Any, int], int] | None = None


FORWARD = Partitioning()


@dataclass(frozen=True)
class Upstream:
    """Where records come from: an operator, the side output `tag` of it, and how they are spread."""

    node: int
    tag: str | None = None
    partitioning: Partitioning = FORWARD


Input = tuple[Upstream, ...]
"""What flows into one input of an operator: several upstreams are a union."""


@dataclass(frozen=True)
class Transformation:
    """One step of the program.

    Attributes:
        id: Its number in the pipeline.
        operator: What it does.
        inputs: What flows into each of the operator's inputs.
        name: The name that the user gave, or None.
        uid: The identity that the user gave, by which a savepoint finds its state; or None.
        parallelism: The parallelism that the user gave, or None.
        on_error: The policy that the user gave, or None.
    """

    id: int
    operator: Operator
    inputs: tuple[Input, ...] = ()
    name: str | None = None
    uid: str | None = None
    parallelism: int | None = None
    on_error: ErrorPolicy | None = None


@dataclass
class Pipeline:
    """The transformations of an environment, in the order in which they were written."""

    _steps: dict[int, Transformation] = field(default_factory=dict)

    def append(self, operator: Operator, *inputs: Input, **options: Any) -> int:
        """Append a transformation and return its id."""
        step = Transformation(len(self._steps), operator, inputs, **options)
        self._steps[step.id] = step
        return step.id

    def change(self, step: int, **options: Any) -> None:
        """Replace options of a transformation."""
        self._steps[step] = replace(self._steps[step], **options)

    def fill(self, head: int, stream: Input) -> None:
        """Let `stream` flow back into the loop head `head`.

        Raises:
            GraphError: `head` is no loop head, or has been filled before.
        """
        step = self._steps[head]
        if not isinstance(step.operator, LoopHead):
            raise GraphError(
                f"fill_future() needs the stream that env.from_future() returned, not the output "
                f"of {step.operator.label}"
            )
        if step.inputs:
            raise GraphError(
                f"the future {step.operator.name!r} is filled twice; to let two streams flow back, "
                "unite them first: a.union(b).fill_future(future)"
            )
        self.change(head, inputs=(stream,))

    def __getitem__(self, step: int) -> Transformation:
        return self._steps[step]

    def __iter__(self) -> Iterator[Transformation]:
        return iter(self._steps.values())

    def __len__(self) -> int:
        return len(self._steps)
