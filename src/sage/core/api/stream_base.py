"""What all streams share: where their records come from, and how a step is appended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Protocol, TypedDict, TypeVar, get_args

from sage.common.config import ErrorPolicy
from sage.common.errors import FunctionError, GraphError
from sage.common.suggest import did_you_mean, shorten
from sage.core.api.job_handle import JobHandle
from sage.dataflow.function.sink import Sink
from sage.dataflow.function.spec import OPERATOR_OPTIONS
from sage.dataflow.graph.transformation import Input, Partitioning, Pipeline, Upstream
from sage.dataflow.operator.base import Operator

S = TypeVar("S", bound="StreamBase")


class OptionsButUid(TypedDict, total=False):
    """The keyword arguments that several operators can share.

    Attributes:
        name: What the operator is called in plans, metrics, logs and errors.
        parallelism: How many subtasks it has.
        on_error: What becomes of a record whose function raises: `"fail"` ends the job, `"skip"`
            counts and logs it, `"dead_letter"` sends it to `stream.dead_letters()`.
    """

    name: str | None
    parallelism: int | None
    on_error: ErrorPolicy | None


class Options(OptionsButUid, total=False):
    """The keyword arguments that every operator takes.

    Attributes:
        uid: Its identity across versions of the program, by which saved state is found again.
    """

    uid: str | None


POLICIES: Final = get_args(ErrorPolicy)


class Host(Protocol):
    """The environment, as streams see it."""

    @property
    def pipeline(self) -> Pipeline:
        """The transformations so far."""
        ...

    def submit_detached(self) -> JobHandle:
        """Start the pipeline as a job that ends with the process at the latest."""
        ...

    def configured_sink(self, name: str, given: Mapping[str, Any]) -> tuple[Sink[Any], Options]:
        """Return the sink that a file calls `name`, and the options of its operator."""
        ...


def part_options(given: Mapping[str, Any]) -> tuple[Options, dict[str, Any]]:
    """Part the options of an operator from the constructor arguments of a function class.

    Raises:
        FunctionError: an option has an impossible value.
    """
    options = {name: value for name, value in given.items() if name in OPERATOR_OPTIONS}
    rest = {name: value for name, value in given.items() if name not in OPERATOR_OPTIONS}
    if options.get("on_error") not in (None, *POLICIES):
        raise FunctionError(not_a_policy(options["on_error"]))
    check_parallelism(options.get("parallelism"))
    return Options(**options), rest  # type: ignore[typeddict-item]


def not_a_policy(policy: object) -> str:
    """Return what to say of an `on_error` that is none."""
    near = did_you_mean(policy, POLICIES) if isinstance(policy, str) else ""
    return f"on_error is one of {', '.join(map(repr, POLICIES))}, not {shorten(policy)}.{near}"


def check_parallelism(parallelism: int | None) -> None:
    """Check that a parallelism is a positive whole number or None.

    Raises:
        GraphError: it is not.
    """
    if parallelism is None:
        return
    if type(parallelism) is not int or parallelism < 1:
        raise GraphError(f"parallelism is a whole number of at least 1, not {parallelism!r}")


class StreamBase:
    """A note of where records come from.

    Args:
        host: The environment.
        origins: The outputs that the records come from; several are a union.
    """

    def __init__(self, host: Host, origins: Input) -> None:
        self._host = host
        self._origins = origins
        self._failing: Input = ()  # other steps of the same call, whose dead letters are its too

    def _append(self, operator: Operator, options: Options, *inputs: Input) -> Input:
        """Append a step and return where its output comes from."""
        return (Upstream(self._host.pipeline.append(operator, *inputs, **options)),)

    def _step(self, doing: str) -> int:
        """Return the one step whose output this stream is.

        Raises:
            GraphError: it is a union, which is not a step of its own.
        """
        steps = {origin.node for origin in self._origins}
        if len(steps) != 1:
            raise GraphError(
                f"{doing} speaks of one operator, but this stream is the union of {len(steps)}; "
                "use it on each of them, or after the next operator"
            )
        return steps.pop()

    def _change(self: S, doing: str, **options: Any) -> S:
        self._host.pipeline.change(self._step(doing), **options)
        return self

    def _spread(self, partitioning: Partitioning) -> Input:
        return tuple(replace(origin, partitioning=partitioning) for origin in self._origins)
