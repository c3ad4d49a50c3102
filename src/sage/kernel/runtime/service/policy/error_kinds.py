"""Telling failures apart by class or by name.

Settings name the errors that they are about. A class is the natural way to write it in a program; a
name is what a file can hold, and the only way to speak of a class that exists in the service's
process alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from sage.common.errors import ConfigError, ServiceCallError
from sage.common.suggest import shorten

ErrorKind: TypeAlias = type[BaseException] | str
"""An exception class, or the name of one: `"ConnectionError"` or, with its module, `"app.NotReady"`."""


def matches(error: BaseException, kinds: Iterable[ErrorKind]) -> bool:
    """Say whether `error`, or what the service's method raised, is of one of the kinds.

    Subclasses match too. For what a method raised this needs the original exception: if it could
    not be carried over, only the name of its own class is known.

    Args:
        error: What a call failed with.
        kinds: Classes and names of classes.

    Examples:
        >>> matches(ConnectionResetError(), ["ConnectionError"])
        True
        >>> matches(ServiceCallError("db", "get", "app.NotReady", "wait"), ["NotReady"])
        True
    """
    for kind in kinds:
        if kind in _names(error) if isinstance(kind, str) else _is_instance(error, kind):
            return True
    return False


def _is_instance(error: BaseException, kind: type[BaseException]) -> bool:
    if isinstance(error, kind):
        return True
    return isinstance(error, ServiceCallError) and isinstance(error.__cause__, kind)


def _names(error: BaseException) -> Iterator[str]:
    yield from _names_of_class(type(error))
    if isinstance(error, ServiceCallError):
        yield error.error_type
        yield error.error_type.rpartition(".")[2]
        if error.__cause__ is not None:
            yield from _names_of_class(type(error.__cause__))


def _names_of_class(cls: type) -> Iterator[str]:
    for base in cls.__mro__:
        yield base.__name__
        yield f"{base.__module__}.{base.__qualname__}"


def error_type_name(error: BaseException) -> str:
    """Return the name under which a failure is counted: for a method's own exception, its type's.

    Examples:
        >>> error_type_name(ServiceCallError("db", "get", "app.NotReady", "wait"))
        'app.NotReady'
        >>> error_type_name(TimeoutError())
        'TimeoutError'
    """
    return error.error_type if isinstance(error, ServiceCallError) else type(error).__name__


def check_kinds(key: str, kinds: Iterable[Any]) -> None:
    """Check a setting that lists errors.

    Raises:
        ConfigError: an entry is neither an exception class nor a name.
    """
    for kind in kinds:
        named = isinstance(kind, str) and bool(kind)
        if not named and not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise ConfigError(
                f"{key} lists exception classes or their names, not {shorten(kind, 60)}"
            )
