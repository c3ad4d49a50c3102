"""`Settings`: typed settings out of a YAML file, with errors that name file, line and key.

A class of settings lists its keys as the fields of a frozen struct; `read_settings` fills it from
a `YamlNode` and checks every value. What the settings mean is the business of those who list them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar, get_args, get_origin

import msgspec

from sage.common.quiet import HIDDEN
from sage.common.suggest import did_you_mean
from sage.common.yaml_file import YamlNode

Size = Annotated[int, msgspec.Meta(ge=0, extra={"unit": "bytes"})]
"""A number of bytes; in a file also a text like `"1GB"`."""

Seconds = Annotated[float, msgspec.Meta(gt=0)]
"""A duration that is not nothing."""

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_UNITS: Final = {
    "": 1, "B": 1,
    "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40,
    "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40,
    "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40,
}  # fmt: skip


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The root of settings: knows where they were read, and which of their values are not shown.

    Attributes:
        where: `file:line: path` of the mapping they were read from; empty when made in a program.
        hidden: The fields that hold what came from an environment variable.
    """

    derived: ClassVar[frozenset[str]] = frozenset({"where", "hidden"})
    """The fields that are not keys of a file."""

    where: str = ""
    hidden: frozenset[str] = frozenset()

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return the fields that are shown, for `repr` and for what rich prints."""
        names = (name for name in self.__struct_fields__ if name not in self.derived)
        return [(n, _Hidden() if n in self.hidden else getattr(self, n)) for n in names]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({fields})"


class _Hidden:
    def __repr__(self) -> str:
        return HIDDEN


_S = TypeVar("_S", bound=Settings)


def parse_size(text: str) -> int:
    """Return the number of bytes that a text stands for.

    A unit stands for a power of 1024, whether it is written KB, K or KiB, and in either case of
    letters: memory is what is meant.

    Raises:
        ValueError: it is not a size.

    Examples:
        >>> parse_size("1GB"), parse_size("1.5 MiB"), parse_size("512")
        (1073741824, 1572864, 512)
    """
    match = _SIZE.fullmatch(text.strip())
    unit = None if match is None else _UNITS.get(match.group(2).upper())
    if match is None or unit is None:
        raise ValueError("not a size: write a number and B, KB, MB, GB or TB")
    return int(float(match.group(1)) * unit) if "." in text else int(match.group(1)) * unit


def read_settings(cls: type[_S], node: YamlNode, skip: Collection[str] = ()) -> _S:
    """Read settings from a mapping of a file.

    Args:
        cls: A frozen struct; its fields are the keys, and those that are settings are mappings.
        node: The mapping; an empty value stands for an empty mapping.
        skip: The names of fields that the caller reads: their keys are known, their values ignored.

    Raises:
        ConfigError: a key is unknown, missing, or its value is not usable.
    """
    fields = [f for f in msgspec.structs.fields(cls) if f.name not in cls.derived]
    node.check_keys(field.encode_name for field in fields)
    values: dict[str, Any] = {}
    hidden = set()
    for field in fields:
        child = node.get(field.encode_name)
        if child is not None and field.name not in skip:
            values[field.name] = read_value(field.type, child)
            if _settings_of(field.type) is None and child.has_substituted():
                hidden.add(field.name)
        elif child is None and field.required:
            raise node.error(f"the key {field.encode_name!r} is missing")
    return cls(where=node.where, hidden=frozenset(hidden), **values)


def read_value(kind: Any, node: YamlNode) -> Any:
    """Read one value as the given type.

    Args:
        kind: Settings, `Size`, or whatever msgspec converts plain data to.
        node: The value.

    Raises:
        ConfigError: it cannot be read so.
    """
    nested = _settings_of(kind)
    if nested is not None:
        return read_settings(nested, node)
    value = node.plain()
    if kind is Any:
        return value
    if isinstance(value, str) and _is_size(kind):
        value = _read_size(value, node)
    if isinstance(value, float) and not math.isfinite(value):
        raise node.error("must be a finite number")
    _check_choice(kind, value, node)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        problem = _describe(str(error), node)
    raise node.error(problem)


def _settings_of(kind: Any) -> type[Settings] | None:
    candidates = (kind, *get_args(kind))
    return next((k for k in candidates if isinstance(k, type) and issubclass(k, Settings)), None)


def _is_size(kind: Any) -> bool:
    return kind is Size or Size in get_args(kind)


def _read_size(text: str, node: YamlNode) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        problem = str(error)
    raise node.error(problem)


def _check_choice(kind: Any, value: object, node: YamlNode) -> None:
    choice = next((k for k in (kind, *get_args(kind)) if get_origin(k) is Literal), None)
    if choice is None or value in get_args(choice) or (value is None and choice is not kind):
        return
    known = get_args(choice)
    got = "what the environment variable holds" if node.substituted else repr(value)
    near = "" if node.substituted else did_you_mean(str(value), known)
    raise node.error(f"must be one of {', '.join(known)}, not {got}.{near}")


def _describe(problem: str, node: YamlNode) -> str:
    """Say what is wrong with a value without saying the value."""
    if not problem.startswith("Expected"):  # only these name types and bounds, and nothing else
        problem = "Not usable here"
    problem = problem[0].lower() + problem[1:]
    if node.substituted and "got `str`" in problem:
        problem += ". A variable in quotes stays text; without them it is read as a number"
    return problem
