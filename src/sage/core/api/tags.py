"""Tags: the names of branches and side outputs, checked where the program is written."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin, get_type_hints

from sage.common.errors import GraphError
from sage.common.suggest import did_you_mean, shorten
from sage.dataflow.function.spec import FunctionSpec


def check_tag(what: str, tag: object, spec: FunctionSpec | None = None) -> None:
    """Check that a tag is a string, and one that the function can name, if it says which these are.

    Args:
        what: What the tag is of, for messages: `"a branch"`.
        tag: What the user gave.
        spec: The function that names the branches.

    Raises:
        GraphError: it is not.

    Examples:
        >>> def parity(n) -> Literal["even", "odd"]: ...
        >>> check_tag("a branch", "evn", FunctionSpec(parity))
        Traceback (most recent call last):
        ...
        sage.common.errors.GraphError: parity names no branch 'evn'. Did you mean 'even'?
    """
    if not isinstance(tag, str):
        raise GraphError(f"the tag of {what} is a string, not {shorten(tag)}")
    if spec is not None and (known := _named_tags(spec)) and tag not in known:
        raise GraphError(f"{spec.name} names no branch {tag!r}.{did_you_mean(tag, known)}")


def _named_tags(spec: FunctionSpec) -> tuple[str, ...]:
    """Return the tags of a function whose annotation says `-> Literal[...]`; else none."""
    function: Any = getattr(spec.target, spec.entries[0], spec.target)
    try:
        returned = get_type_hints(function).get("return")
    except (TypeError, NameError, AttributeError):  # no function, or names that are not there
        return ()
    return get_args(returned) if get_origin(returned) is Literal else ()
