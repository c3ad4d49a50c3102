"""How a user's function gets from the program to the task that runs it.

Every operator takes a callable, a function class with constructor arguments, or an instance. A
`FunctionSpec` records which, checks it while the program is being written (when the mistake is
still on the screen), and makes the live function when the task opens.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from sage.common.errors import FunctionError
from sage.common.suggest import did_you_mean, shorten
from sage.dataflow.function.base import BaseFunction

OPERATOR_OPTIONS = ("name", "uid", "parallelism", "on_error")
"""The keyword arguments that operators take for themselves; all others are a function class's."""


@dataclass(frozen=True)
class FunctionSpec:
    """A function as the user gave it.

    Attributes:
        target: A callable, a function class, or an instance of one.
        args: Positional arguments of the constructor; only with a class.
        kwargs: Keyword arguments of the constructor; only with a class.
        entries: The names of the methods that are called, when `target` is a class or an instance.
    """

    target: Any
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    entries: tuple[str, ...] = ("execute",)

    @property
    def name(self) -> str:
        """A short name for plans and errors; `"<lambda>"` for a lambda."""
        target = self.target.func if isinstance(self.target, functools.partial) else self.target
        if isinstance(target, BaseFunction) or not hasattr(target, "__name__"):
            return type(target).__name__
        return str(target.__name__)

    @property
    def function_class(self) -> type:
        """The class of the function, be it given by its class or by an instance."""
        return self.target if isinstance(self.target, type) else type(self.target)

    def create(self) -> Any:
        """Make the live function: a new instance of a class, anything else as it is."""
        if not is_function_class(self.target, self.entries):
            return self.target
        taken, extra = _split_arguments(self.target, self.kwargs)
        function = self.target(*self.args, **taken)
        if extra:
            function.params = {**function.params, **extra}
        return function

    def entry_points(self, function: Any) -> list[Callable[..., Any]]:
        """Return what is called with records: the methods of a function object, or the callable."""
        if _has_entries(function, self.entries):
            return [getattr(function, entry) for entry in self.entries]
        return [function]


def function_spec(
    role: str,
    target: Any,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    entries: tuple[str, ...] = ("execute",),
    awaits: bool = False,
) -> FunctionSpec:
    """Check what was given as the function of an operator.

    Args:
        role: The operator's kind, for messages: `"map"`.
        target: A callable, a function class, or an instance.
        args: Positional arguments for the constructor of a class.
        kwargs: Keyword arguments for the constructor of a class.
        entries: The methods that the operator calls on a function object.
        awaits: Whether the operator awaits what the function gives.

    Raises:
        FunctionError: it cannot serve; the message says what would.
    """
    spec = FunctionSpec(target, args, dict(kwargs or {}), entries)
    if is_function_class(target, entries):
        _check_class(role, spec, awaits)
    elif _has_entries(target, entries):
        _check_instance(role, spec, awaits)
    elif callable(target) and len(entries) == 1:
        _check_callable(role, spec, awaits)
    else:
        choices = "a callable, a function class" if len(entries) == 1 else "a function class"
        methods = f"method{'s' if len(entries) > 1 else ''} {', '.join(entries)}"
        raise FunctionError(
            f"{role}() needs {choices} or an instance of one (with the {methods}), not "
            f"{shorten(target)} of type {type(target).__name__}"
        )
    return spec


def is_function_class(target: Any, entries: tuple[str, ...] = ("execute",)) -> bool:
    """Say whether `target` is a class to make instances of; `int` or a dataclass is a callable."""
    return isinstance(target, type) and (
        issubclass(target, BaseFunction) or all(_defines(target, entry) for entry in entries)
    )


def _has_entries(target: Any, entries: tuple[str, ...]) -> bool:
    if isinstance(target, type):
        return False
    return isinstance(target, BaseFunction) or all(_defines(target, entry) for entry in entries)


def _defines(target: Any, entry: str) -> bool:
    return callable(getattr(target, entry, None))


def _check_class(role: str, spec: FunctionSpec, awaits: bool) -> None:
    _check_entries(role, spec.target, spec.entries, awaits)
    taken, extra = _split_arguments(spec.target, spec.kwargs)
    for name in extra:
        near = get_close_matches(name, OPERATOR_OPTIONS, n=1, cutoff=0.8)
        if near or not issubclass(spec.target, BaseFunction):
            raise FunctionError(_no_argument(role, spec, name))
    try:
        inspect.signature(spec.target).bind(*spec.args, **taken)
    except TypeError as error:
        raise FunctionError(
            f"{role}(): {spec.target.__name__} cannot be constructed from the arguments given: "
            f"{error}. Arguments after the class are passed to its constructor."
        ) from None


def _check_instance(role: str, spec: FunctionSpec, awaits: bool) -> None:
    _check_entries(role, type(spec.target), spec.entries, awaits)
    if spec.args or spec.kwargs:
        raise FunctionError(
            f"{role}(): arguments were given beside an instance of {type(spec.target).__name__}; "
            "give the class, or leave them out"
        )


def _check_entries(role: str, cls: type, entries: tuple[str, ...], awaits: bool) -> None:
    for entry in entries:
        method = getattr(cls, entry, None)
        if method is None or getattr(method, "__isabstractmethod__", False):
            names = [name for name, value in vars(cls).items() if callable(value)]
            raise FunctionError(
                f"{role}(): {cls.__name__} does not define {entry}(), which {role} calls."
                f"{did_you_mean(entry, names)}"
            )
        if _is_async(method) and not awaits:
            raise FunctionError(_no_coroutines(role, f"{cls.__name__}.{entry}"))


def _check_callable(role: str, spec: FunctionSpec, awaits: bool) -> None:
    if spec.args:
        raise FunctionError(
            f"{role}(): arguments are for function classes; give a callable its "
            "arguments with functools.partial or a lambda"
        )
    if spec.kwargs:
        raise FunctionError(_no_argument(role, spec, next(iter(spec.kwargs))))
    if not awaits:
        refuse_async(role, spec.target)


def _no_argument(role: str, spec: FunctionSpec, name: str) -> str:
    return (
        f"{role}(): unknown option {name!r}.{did_you_mean(name, OPERATOR_OPTIONS)} "
        f"{spec.name} takes no such argument either."
    )


def refuse_async(role: str, target: Any) -> None:
    """Check that a callable is not one whose result would have to be awaited.

    Raises:
        FunctionError: it is an async function, an object with an async `__call__`, or a partial of
            either.
    """
    while isinstance(target, functools.partial):
        target = target.func
    if _is_async(target) or _is_async(getattr(type(target), "__call__", None)):  # noqa: B004
        raise FunctionError(_no_coroutines(role, FunctionSpec(target).name))


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _no_coroutines(role: str, name: str) -> str:
    return (
        f"{role}(): {name} is an async function, which {role} would call but never await; "
        f"async functions are not supported by {role}; {instead_of(role)}"
    )


def instead_of(role: str) -> str:
    """Return what to say to those who want to give an async function to an operator."""
    if role in ("map", "flat_map"):
        return f"use async_{role}(...)"
    if role.startswith("async_"):
        return "leave out blocking=True: async functions run in an event loop"
    return "await what it needs in an async_map(...) before"


def _split_arguments(cls: type, kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part the keyword arguments that the constructor takes from those it does not."""
    try:
        parameters = inspect.signature(cls).parameters
    except ValueError:  # a class written in C tells no signature: let it speak for itself
        return dict(kwargs), {}
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return dict(kwargs), {}
    taken = {name: value for name, value in kwargs.items() if name in parameters}
    return taken, {name: value for name, value in kwargs.items() if name not in parameters}
