"""YAML files as plain data that remembers where it stands, so that errors can say so.

`read_yaml` gives a tree of `YamlNode`: text, numbers, booleans, `None`, lists and mappings with text
as keys; each with its file, line, column and path of keys. What the data means is not known here:
`sage.common.settings` gives it types.

The grammar is that of PyYAML's safe loader (YAML 1.1: `on` and `yes` are booleans, `010` is eight),
without what surprises in a configuration: a key given twice is an error, dates stay text, and a tag
is an error, so nothing is ever constructed.

Environment variables are put into *values*, as `sage.common.substitution` describes. A value in
quotes stays text whatever the variable holds; one without quotes is read again as a YAML scalar, so
`port: ${PORT}` is a number. It stays one scalar: a variable cannot add keys or items. (Between `{`
and `}` YAML itself wants the quotes.)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

from sage.common.errors import ConfigError
from sage.common.quiet import QuietDict, QuietList
from sage.common.substitution import SubstitutionError, substitute
from sage.common.suggest import did_you_mean

Scalar: TypeAlias = str | int | float | bool | None

MAX_VALUES: Final = 100_000
"""How many values a file may have once its aliases are followed: a few lines can stand for billions."""

UNREAD_KEYS: Final = "x-"
"""How the keys begin that a file may have for itself: a place for what it refers to by `*name`."""

_TAG: Final = "tag:yaml.org,2002:"
_AS_TEXT: Final = frozenset({_TAG + "str", _TAG + "timestamp", _TAG + "value", _TAG + "merge"})
_AS_VALUE: Final = frozenset({_TAG + "int", _TAG + "float", _TAG + "bool", _TAG + "null"})
_COLLECTIONS: Final = frozenset({_TAG + "map", _TAG + "seq"})


@dataclass(frozen=True, eq=False)
class YamlNode:
    """A value in a YAML file.

    Attributes:
        file: The file, as it was named by the caller.
        path: The keys and indices that lead to the value.
        line: The line on which the key of the value stands, or the value when it has none; from 1.
        column: The column there, from 1.
        value: A scalar, a mapping of names to nodes, or a list of nodes.
        substituted: Whether an environment variable was put into it. It is then never shown.

    Examples:
        >>> node = parse_yaml("cache: {size: 10}", "services.yaml")
        >>> node.get("cache").get("size")
        <services.yaml:1: cache.size>
        >>> node.plain()
        {'cache': {'size': 10}}
    """

    file: str
    path: tuple[str | int, ...]
    line: int
    column: int
    value: Scalar | dict[str, YamlNode] | list[YamlNode]
    substituted: bool = False

    @property
    def name(self) -> str:
        """The path as it is written in messages: `services.cache.args[0]`."""
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path)
        return "".join(steps).removeprefix(".")

    @property
    def where(self) -> str:
        """File, line and path: `services.yaml:12: services.cache.process_count`."""
        return f"{self.file}:{self.line}: {self.name}".removesuffix(": ")

    def error(self, problem: str) -> ConfigError:
        """Return the error that says where and what; `problem` must not quote a hidden value."""
        return ConfigError(f"{self.where}: {problem}")

    def mapping(self) -> dict[str, YamlNode]:
        """Return the keys and their nodes; an empty value is an empty mapping.

        Raises:
            ConfigError: it is something else.
        """
        if self.value is None and not self.substituted:
            return {}
        if not isinstance(self.value, dict):
            raise self.error(f"must be a mapping of keys to values, not {self.kind}")
        return self.value

    @property
    def kind(self) -> str:
        """What sort of value it is, in words."""
        kinds = {dict: "a mapping", list: "a list", str: "a text", type(None): "empty"}
        return kinds.get(type(self.value), f"a {type(self.value).__name__}")

    def get(self, key: str) -> YamlNode | None:
        """Return the node of a key of this mapping, or `None`."""
        return self.mapping().get(key)

    def has_substituted(self) -> bool:
        """Say whether an environment variable was put into it or anything inside of it."""
        inner: Iterable[YamlNode] = ()
        if isinstance(self.value, dict | list):
            inner = self.value.values() if isinstance(self.value, dict) else self.value
        return self.substituted or any(node.has_substituted() for node in inner)

    def plain(self) -> Any:
        """Return the data without places. Its containers do not show substituted values."""
        if isinstance(self.value, dict):
            hidden = frozenset(k for k, node in self.value.items() if node.substituted)
            return QuietDict({k: node.plain() for k, node in self.value.items()}, hidden)
        if isinstance(self.value, list):
            places = frozenset(i for i, node in enumerate(self.value) if node.substituted)
            return QuietList([node.plain() for node in self.value], places)
        return self.value

    def check_keys(self, known: Iterable[str], free: str | None = None) -> None:
        """Demand that this mapping has no other keys.

        Args:
            known: The keys that it may have.
            free: Keys that begin so are nobody's, and may be there.

        Raises:
            ConfigError: there is one; the message names the nearest known key.
        """
        names = sorted(known)
        for key, node in self.mapping().items():
            if key not in names and not (free and key.startswith(free)):
                near = did_you_mean(key, names) or f" Known keys: {', '.join(names)}."
                raise node.error(f"unknown key.{near}")

    def __repr__(self) -> str:
        return f"<{self.where}>"


def read_yaml(path: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> YamlNode:
    """Read a YAML file of one document.

    Args:
        path: The file, in UTF-8 (or UTF-16 with a byte order mark).
        environ: The variables to put in; those of this process by default.

    Raises:
        ConfigError: it cannot be read, is not YAML, has a key twice, a key that is not text, a tag,
            or a variable that is not set. The message names file and line.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{os.fspath(path)}: cannot be read: {error.strerror}") from error
    return parse_yaml(data, os.fspath(path), environ)


def parse_yaml(
    data: str | bytes, file: str = "<text>", environ: Mapping[str, str] | None = None
) -> YamlNode:
    """Read YAML that is in memory; see `read_yaml`.

    Args:
        data: The text of one document.
        file: What to call it in messages.
        environ: The variables to put in; those of this process by default.

    Raises:
        ConfigError: as for `read_yaml`.
    """
    try:
        root = yaml.compose(data, Loader=yaml.SafeLoader)
        if root is None:
            return YamlNode(file, (), 1, 1, None)
        return _Builder(file, os.environ if environ is None else environ).build(root, (), root)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{file}:{line}: not valid YAML: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        raise ConfigError(f"{file}: not text: {error.reason} at {error.position}") from None
    except RecursionError:
        raise ConfigError(f"{file}: nested too deeply") from None


class _Builder:
    """Turns the nodes of the parser into ours."""

    def __init__(self, file: str, environ: Mapping[str, str]) -> None:
        self._file = file
        self._environ = environ
        self._open: set[int] = set()  # the collections around the node being built
        self._count = 0
        self._values = yaml.SafeLoader("")  # reads scalars; it has no document of its own

    def build(self, node: yaml.Node, path: tuple[str | int, ...], at: yaml.Node) -> YamlNode:
        """Build a node; `at` is where it is said to stand: its key, if it has one."""
        self._count += 1
        value: Scalar | dict[str, YamlNode] | list[YamlNode]
        substituted = False
        self._check(node, path)
        if isinstance(node, yaml.ScalarNode):
            value, substituted = self._scalar(node, path)
        else:
            self._open.add(id(node))
            value = self._collection(node, path)
            self._open.discard(id(node))
        mark = at.start_mark
        return YamlNode(self._file, path, mark.line + 1, mark.column + 1, value, substituted)

    def _check(self, node: yaml.Node, path: tuple[str | int, ...]) -> None:
        if node.tag not in _AS_TEXT | _AS_VALUE | _COLLECTIONS:
            raise self._error(node, path, f"the tag {node.tag.replace(_TAG, '!!')} is not allowed")
        if self._count > MAX_VALUES:
            raise self._error(node, path, f"more than {MAX_VALUES} values, aliases included")
        if id(node) in self._open:
            raise self._error(node, path, "an alias stands inside of what it stands for")

    def _collection(
        self, node: yaml.Node, path: tuple[str | int, ...]
    ) -> dict[str, YamlNode] | list[YamlNode]:
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, i), item) for i, item in enumerate(node.value)]
        pairs = self._own_pairs(node, path)
        for key, key_node, value_node in self._merged_pairs(node, path):
            pairs.setdefault(key, (key_node, value_node))
        return {k: self.build(v, (*path, k), key_node) for k, (key_node, v) in pairs.items()}

    def _own_pairs(
        self, node: yaml.Node, path: tuple[str | int, ...]
    ) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        pairs: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                continue
            key = self._key(key_node, path)
            if key in pairs:
                line = pairs[key][0].start_mark.line + 1
                raise self._error(
                    key_node, (*path, key), f"the key is given twice, first on line {line}"
                )
            pairs[key] = (key_node, value_node)
        return pairs

    def _merged_pairs(
        self, node: yaml.Node, path: tuple[str | int, ...]
    ) -> Iterable[tuple[str, yaml.Node, yaml.Node]]:
        """Yield what `<<: *other` brings in; what stands in the mapping itself goes before it."""
        for key_node, value_node in node.value:
            if key_node.tag != _TAG + "merge":
                continue
            others = value_node.value if value_node.tag == _TAG + "seq" else [value_node]
            for other in others:
                self._count += 1
                self._check(other, (*path, "<<"))
                if other.tag != _TAG + "map" or id(other) in self._open:
                    raise self._error(key_node, (*path, "<<"), "only mappings can be merged")
                yield from ((k, *pair) for k, pair in self._own_pairs(other, path).items())
                yield from self._merged_pairs(other, path)

    def _key(self, node: yaml.Node, path: tuple[str | int, ...]) -> str:
        if not isinstance(node, yaml.ScalarNode) or node.tag not in _AS_TEXT:
            raise self._error(node, path, "a key is not text; put it in quotes")
        return str(node.value)

    def _scalar(self, node: yaml.ScalarNode, path: tuple[str | int, ...]) -> tuple[Scalar, bool]:
        if node.tag not in _AS_TEXT:
            return self._value(node, path, hide=False), False
        try:
            text, substituted = substitute(node.value, self._environ)
        except SubstitutionError as error:
            raise self._error(node, path, str(error)) from None
        if not substituted or node.style is not None:
            return text, substituted
        tag = self._values.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        again = yaml.ScalarNode(tag, text, node.start_mark, node.end_mark)
        return (text if tag in _AS_TEXT else self._value(again, path, hide=True)), True

    def _value(self, node: yaml.ScalarNode, path: tuple[str | int, ...], *, hide: bool) -> Scalar:
        with suppress(ValueError, KeyError, IndexError):  # PyYAML's for "!!int x", "!!bool 7"
            value: Scalar = self._values.construct_object(node)
            return value
        # out here, so that the error does not carry along one that quotes a hidden value
        shown = "what the variable holds" if hide else repr(node.value[:50])
        kind = node.tag.removeprefix(_TAG)
        raise self._error(node, path, f"{shown} is not of the type {kind}")

    def _error(self, node: yaml.Node, path: tuple[str | int, ...], problem: str) -> ConfigError:
        mark = node.start_mark
        return YamlNode(self._file, path, mark.line + 1, mark.column + 1, None).error(problem)
