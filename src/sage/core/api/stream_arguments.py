"""What the methods of streams do to their arguments."""

from __future__ import annotations

from typing import Any, cast

from sage.common.errors import FunctionError
from sage.common.suggest import did_you_mean
from sage.core.api.stream_base import Options, part_options
from sage.dataflow.function.spec import FunctionSpec, function_spec
from sage.dataflow.operator.keyed import Emit


def function_and_options(
    role: str, function: Any, args: tuple[Any, ...], kw: dict[str, Any]
) -> tuple[FunctionSpec, Options]:
    """Part what was given to an operator into its function and its options."""
    options, rest = part_options(kw)
    return function_spec(role, function, args, rest), options


def has_methods(function: Any, stem: str, count: int) -> bool:
    """Say whether a function object has a method per input."""
    return all(callable(getattr(function, f"{stem}{i}", None)) for i in range(count))


def named(options: Options, name: str) -> Options:
    """Give an operator a name unless the user has."""
    return cast("Options", {"name": name, **options})


def no_key(_record: Any) -> None:
    """Return the one key of all records."""
    return None  # noqa: RET501 - it is the key


def itself(record: Any) -> Any:
    """Return the record."""
    return record


def near_method(stream: object, name: str) -> str:
    """Return the method that may have been meant."""
    return did_you_mean(name, [n for n in dir(type(stream)) if not n.startswith("_")])


def checked_emit(emit: Emit) -> Emit:
    """Return when results go out, checked."""
    if emit not in ("update", "final"):
        raise FunctionError(f'emit is "update" or "final", not {emit!r}')
    return emit
