"""`ConfiguredConnectors`: the part of an environment that knows sources and sinks by their names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sage.common.errors import ConfigError
from sage.core.api.datastream import DataStream
from sage.core.api.stream_base import Options, part_options
from sage.dataflow.function.sink import Sink

if TYPE_CHECKING:
    from sage.core.api.connector_file import ConfiguredConnector, Role


class ConfiguredConnectors:
    """Sources and sinks that a file describes, so that a program need not."""

    def __init__(self) -> None:
        self._connectors: dict[tuple[Role, str], ConfiguredConnector] = {}

    def load_connectors(self, path: str | os.PathLike[str]) -> None:
        """Read sources and sinks from a YAML file, for `from_config` and `stream.to_config`.

        `${NAME}` and `${NAME:-default}` in its values stand for environment variables. The file may
        describe services as well, for `load_services`.

        Raises:
            ConfigError: the file, or something in it, is not usable; the message names file, line and
                key.
        """
        # What reads YAML is imported by those who have such a file.
        from sage.core.api.connector_file import read_connectors  # noqa: PLC0415

        for connector in read_connectors(path):
            place = connector.role, connector.name
            if place in self._connectors:
                where = self._connectors[place].node.where
                raise connector.node.error(f"there is one of this name already, in {where}")
            self._connectors[place] = connector

    def from_config(self, name: str, **options: Any) -> DataStream[Any]:
        """Read the source that a file calls `name`; see `load_connectors`.

        Args:
            name: What the file calls it; the operator is called so as well.
            options: What the file does not say, such as a function or `uid=`.

        Raises:
            ConfigError: there is no such source, or what it is told cannot be used.

        Examples:
            >>> import pathlib, tempfile
            >>> from sage import LocalEnvironment
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     file = pathlib.Path(folder, "connectors.yaml")
            ...     _ = file.write_text("sources: {trips: {type: csv, paths: 'trips/*.csv'}}")
            ...     env = LocalEnvironment("trips")
            ...     env.load_connectors(file)
            >>> miles = env.from_config("trips").map(lambda trip: trip["miles"]).collect()
        """
        connector = self._connector("source", name)
        made_by = getattr(self, str(connector.type.made_by))
        named = {} if connector.node.get("name") else {"name": name}
        stream: DataStream[Any] = connector.make({**named, **options}, made_by)
        return stream

    def configured_sink(self, name: str, given: Mapping[str, Any]) -> tuple[Sink[Any], Options]:
        """Return the sink that a file calls `name`, and the options of its operator.

        Raises:
            ConfigError: there is no such sink, or what it is told cannot be used.
        """
        connector = self._connector("sink", name)

        def make(**arguments: Any) -> tuple[Sink[Any], Options]:
            options, rest = part_options({"name": name, **arguments})
            made_by: Any = connector.type.made_by
            return made_by(**rest), options

        made: tuple[Sink[Any], Options] = connector.make(given, make)
        return made

    def _connector(self, role: Role, name: str) -> ConfiguredConnector:
        from sage.core.api.connector_file import find  # reads YAML as well  # noqa: PLC0415

        if not isinstance(name, str):
            raise ConfigError(f"a {role} of a file is called by its name, not {name!r}")
        return find(self._connectors, role, name)
