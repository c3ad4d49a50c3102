"""From a configuration file to sources and sinks: what is there, what it may say, where it says it.

A file has `sources` and `sinks` by name. The `type` of each stands for a connector, and its other keys
are the arguments of that connector. What cannot be written in a file, such as a function, is given in
the program. A problem is told with file, line and key; what came out of the environment is not shown.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from sage.common.errors import ConfigError, SageError
from sage.common.settings import Settings, read_settings
from sage.common.suggest import did_you_mean
from sage.common.yaml_file import UNREAD_KEYS, YamlNode, read_yaml
from sage.connector.csv_file import CsvSource
from sage.connector.file import TextFileOptions, TextFileSource
from sage.connector.file_sink import FileSink, FileSinkOptions
from sage.connector.kafka_deserializers import SchemaDeserializer
from sage.connector.kafka_serializers import SchemaSerializer
from sage.connector.kafka_settings import SchemaRegistry
from sage.connector.kafka_sink import KafkaSink, KafkaSinkOptions
from sage.connector.kafka_source import KafkaSource, KafkaSourceOptions
from sage.connector.parquet_source import ParquetSource
from sage.connector.row_buffer import Spill
from sage.connector.socket import SocketTextSource
from sage.dataflow.function.spec import OPERATOR_OPTIONS
from sage.kernel.runtime.service.config.service_settings import ServiceFileConfig

Role: TypeAlias = Literal["source", "sink"]

SERVICE_KEYS: Final = frozenset(ServiceFileConfig.__struct_fields__) - {
    *ServiceFileConfig.derived,
    "unsupported",
}
"""What the file may say about services, which `load_services` reads."""

_SHORT: Final = 4  # a text that short stands in messages by chance


@dataclass(frozen=True)
class ConnectorType:
    """What a `type` stands for.

    Attributes:
        made_by: What is called with the keys: a method of the environment, or the class of a sink.
        connector: The class whose arguments the keys are.
        options: The `TypedDict` of those that it takes as `**options`.
        in_program: Which of them no file can say.
        defaults: Values of those that are not said.
    """

    made_by: str | Callable[..., Any]
    connector: Callable[..., Any]
    options: type | None = None
    in_program: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def keys(self) -> frozenset[str]:
        """Return the keys that it may have in a file."""
        return self._arguments() - self.in_program | frozenset(OPERATOR_OPTIONS)

    def required(self) -> list[str]:
        """Return the arguments that it cannot do without."""
        return [p.name for p in self._parameters() if p.default is p.empty]

    def _arguments(self) -> frozenset[str]:
        named = {parameter.name for parameter in self._parameters()}
        return frozenset(named).union(self.options.__annotations__ if self.options else ())

    def _parameters(self) -> list[inspect.Parameter]:
        found = inspect.signature(self.connector).parameters.values()
        return [p for p in found if p.kind is not p.VAR_KEYWORD]


_FUNCTIONS: Final = frozenset({"partition", "headers", "timestamp"})
TYPES: Final[Mapping[Role, Mapping[str, ConnectorType]]] = {
    "source": {
        "csv": ConnectorType("from_csv", CsvSource, TextFileOptions),
        "jsonl": ConnectorType("from_jsonl", TextFileSource, TextFileOptions),
        "kafka": ConnectorType("from_kafka_source", KafkaSource, KafkaSourceOptions),
        "parquet": ConnectorType("from_parquet", ParquetSource),
        "socket": ConnectorType("from_socket_text_stream", SocketTextSource),
        "text": ConnectorType("from_text_file", TextFileSource, TextFileOptions),
    },
    "sink": {
        "files": ConnectorType(
            FileSink, FileSink, FileSinkOptions, frozenset({"schema"}), {"format": "jsonl"}
        ),
        "kafka": ConnectorType(KafkaSink, KafkaSink, KafkaSinkOptions, _FUNCTIONS),
    },
}
"""The types of sources and sinks."""


@dataclass(frozen=True, eq=False)
class ConfiguredConnector:
    """A source or a sink as a file has it.

    Attributes:
        role: Which of the two.
        name: What it is called.
        type: What it is.
        node: Where it stands.
    """

    role: Role
    name: str
    type: ConnectorType
    node: YamlNode

    def make(self, given: Mapping[str, Any], call: Callable[..., Any]) -> Any:
        """Call what makes it, with what the file says and the program gives.

        Args:
            given: The arguments of the program.
            call: What is called; `type.made_by`, or the method of that name.

        Raises:
            ConfigError: an argument is missing, given twice, or not usable.
        """
        arguments = {**self.type.defaults, **self._said(), **given}
        for key in given:
            twice = self.node.get(key)
            if twice is not None and key != "type":  # which is something else in the program
                raise twice.error(f"{key!r} is given in the program as well; leave one of them out")
        for key in self.type.required():
            if key not in arguments:
                raise self.node.error(f"the key {key!r} is missing, in the file and in the program")
        with self.telling_where():
            return call(**arguments)

    def _said(self) -> dict[str, Any]:
        return {
            key: _value(key, node) for key, node in self.node.mapping().items() if key != "type"
        }

    @contextmanager
    def telling_where(self) -> Iterator[None]:
        """Let an error say where in the file its reason is, and nothing that must not be shown."""
        try:
            yield
        except SageError as error:
            problem = str(error)
        else:
            return
        found = self.node.mapping()
        places = {key: re.search(rf"\b{re.escape(key)}\b", problem) for key in found}
        spoken_of = [(match.start(), key) for key, match in places.items() if match is not None]
        node = found[min(spoken_of)[1]] if spoken_of else self.node
        raise node.error(_without(problem, self.node))


def read_connectors(
    path: str | os.PathLike[str], environ: Mapping[str, str] | None = None
) -> list[ConfiguredConnector]:
    """Read which sources and sinks a YAML file describes.

    Args:
        path: The file.
        environ: The variables to put in; those of this process by default.

    Raises:
        ConfigError: the file or something in it is not usable; the message names file, line and key.

    Examples:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        ...     _ = file.write("sources: {trips: {type: csv, paths: trips/*.csv}}")
        ...     file.flush()
        ...     [(connector.role, connector.name) for connector in read_connectors(file.name)]
        [('source', 'trips')]
    """
    root = read_yaml(path, environ)
    root.check_keys(["sources", "sinks", *SERVICE_KEYS], free=UNREAD_KEYS)
    roles: list[tuple[Role, YamlNode | None]] = [
        ("source", root.get("sources")),
        ("sink", root.get("sinks")),
    ]
    return [
        ConfiguredConnector(role, name, _type_of(role, entry), entry)
        for role, node in roles
        if node is not None
        for name, entry in node.mapping().items()
    ]


def _type_of(role: Role, node: YamlNode) -> ConnectorType:
    types, said = TYPES[role], node.get("type")
    told = ", ".join(types)
    if said is None:
        raise node.error(f"the key 'type' is missing; a {role} is one of {told}")
    if said.value not in types:
        got = "what the environment variable holds" if said.substituted else repr(said.value)
        near = "" if said.substituted else did_you_mean(str(said.value), types)
        raise said.error(f"a {role} is one of {told}, not {got}.{near}")
    found = types[str(said.value)]
    for key, child in node.mapping().items():
        if key in found.in_program:
            raise child.error(f"{key!r} cannot be said in a file; give it in the program")
    node.check_keys({"type", *found.keys()})
    return found


# ---- values


def _value(key: str, node: YamlNode) -> Any:
    if key in {"start", "stop"} and isinstance(node.value, str):
        return _time_or_text(node.value)
    if isinstance(node.value, dict):
        if key.endswith("_deserializer"):
            return _with_schema(node, SchemaDeserializer)
        if key.endswith("_serializer"):
            return _with_schema(node, SchemaSerializer)
        if key == "spill":
            return _spill(node)
    return node.plain()


def _time_or_text(text: str) -> datetime | str:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return text


class _SpillSettings(Settings, frozen=True, kw_only=True):
    directory: str
    above_bytes: int = Spill.above_bytes


def _spill(node: YamlNode) -> Spill:
    said = read_settings(_SpillSettings, node)
    return Spill(said.directory, said.above_bytes)


class _RegistrySettings(Settings, frozen=True, kw_only=True):
    url: str
    properties: Any = None


class _SchemaSettings(Settings, frozen=True, kw_only=True):
    type: Literal["avro", "json_schema"]
    registry: _RegistrySettings
    schema: str | None = None
    schema_file: str | None = None
    options: Any = None


def _with_schema(node: YamlNode, make: Callable[..., Any]) -> Any:
    said = read_settings(_SchemaSettings, node)
    registry = SchemaRegistry(said.registry.url, said.registry.properties)
    schema = said.schema
    if said.schema_file is not None:
        if schema is not None:
            raise node.error("'schema' and 'schema_file' are one too many")
        schema = _read_text(said.schema_file, node.mapping()["schema_file"])
    return make(said.type, registry, schema, said.options)


def _read_text(path: str, node: YamlNode) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    raise node.error(problem)


# ---- what must not be shown


def _without(problem: str, node: YamlNode) -> str:
    for text in _substituted(node):
        problem = problem.replace(repr(text), "'***'")
        if len(text) >= _SHORT:
            problem = problem.replace(text, "***")
    return problem


def _substituted(node: YamlNode) -> Iterator[str]:
    if isinstance(node.value, dict | list):
        inner = node.value.values() if isinstance(node.value, dict) else node.value
        for child in inner:
            yield from _substituted(child)
    elif node.substituted:
        yield str(node.value)


def find(
    connectors: Mapping[tuple[Role, str], ConfiguredConnector], role: Role, name: str
) -> ConfiguredConnector:
    """Return the source or the sink of a name.

    Raises:
        ConfigError: there is none; the message names the nearest one.
    """
    if (role, name) in connectors:
        return connectors[role, name]
    known = [called for of, called in connectors if of == role]
    near = did_you_mean(name, known) or (
        f" There are {', '.join(map(repr, known))}." if known else ""
    )
    told = near or f" env.load_connectors(file) reads the {role}s of a file."
    raise ConfigError(f"no {role} is called {name!r}.{told}")
