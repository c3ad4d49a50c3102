"""JSON lines: functions for a map and a filter that turn lines of text into objects."""

from __future__ import annotations

from typing import Any

import msgspec

from sage.common.suggest import shorten


class JsonLineDecoder:
    """Turns a line of JSON into an object; made by `json_line_decoder`."""

    def __init__(self, type: Any) -> None:  # noqa: A002 - as in msgspec
        self.type = type
        self._decode = msgspec.json.Decoder(type).decode

    def __call__(self, line: str) -> Any:
        """Return the object that `line` stands for.

        Raises:
            ValueError: it is not JSON, or not of the type.
        """
        try:
            return self._decode(line)
        except msgspec.DecodeError as error:
            kind = "of the type asked for" if isinstance(error, msgspec.ValidationError) else "JSON"
            raise ValueError(f"not {kind}: {error}; the line is {shorten(line)}") from error

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.type,))


def json_line_decoder(type: Any = None) -> JsonLineDecoder:  # noqa: A002 - as in msgspec
    """Return a function from a line of JSON to an object.

    Args:
        type: What an object must be: a `msgspec.Struct`, a dataclass, a `TypedDict`,
            `dict[str, int]` …; `None` takes whatever comes.

    Raises:
        TypeError: JSON cannot be turned into `type`.

    Examples:
        >>> json_line_decoder()('{"id": 7}')
        {'id': 7}
        >>> json_line_decoder(int)('"x"')
        Traceback (most recent call last):
        ...
        ValueError: not of the type asked for: Expected `int`, got `str`; the line is '"x"'
    """
    return JsonLineDecoder(Any if type is None else type)


def is_not_blank(line: str) -> bool:
    """Say whether `line` has anything but white space in it.

    Examples:
        >>> is_not_blank("x"), is_not_blank(" "), is_not_blank("")
        (True, False, False)
    """
    return line != "" and not line.isspace()
