"""Near misses: the names a user may have meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the nearest known name, or `""` when none is near.

    Args:
        word: What the user wrote.
        known: The names that would have been right.

    Examples:
        >>> did_you_mean("paralelism", ["parallelism", "buffer_size"])
        " Did you mean 'parallelism'?"
    """
    near = get_close_matches(word, sorted(known), n=2, cutoff=0.6)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def shorten(value: object, limit: int = 200) -> str:
    """Return `repr(value)` cut to `limit` characters; a failing `repr` is named, not raised.

    Examples:
        >>> shorten("x" * 500, limit=12)
        "'xxxxxxxxxx…"
    """
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - a record's own repr must not hide the error being told
        text = f"<{type(value).__name__} whose repr failed: {type(error).__name__}>"
    return text if len(text) <= limit else text[: limit - 1] + "…"


def text_of(error: BaseException) -> str:
    """Return `str(error)`; a failing `str` is named, not raised.

    Examples:
        >>> text_of(ValueError("too late"))
        'too late'
    """
    try:
        return str(error)
    except Exception as second:  # noqa: BLE001 - the error being told is the first one
        return f"<{type(error).__name__} whose str failed: {type(second).__name__}>"
