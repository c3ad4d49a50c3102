"""`BaseEnvironment`: what all environments share, which is how a program begins.

It holds the configuration and the pipeline and makes streams from sources. Where the pipeline runs is
the business of its subclasses.
"""

from __future__ import annotations

import logging
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar, overload

from sage.common.clock import Clock, SystemClock
from sage.common.config import EnvironmentConfig, ErrorPolicy
from sage.common.errors import ConfigError, FunctionError
from sage.common.ids import new_uuid
from sage.common.log import get_logger, log_to_console
from sage.common.suggest import shorten
from sage.connector.collection import CollectionSource
from sage.connector.csv_file import CsvSource, csv_row_to_dict
from sage.connector.file import TextFileOptions, TextFileSource
from sage.connector.json_lines import is_not_blank, json_line_decoder
from sage.connector.kafka_deserializers import Deserializer
from sage.connector.kafka_partitions import Reset
from sage.connector.kafka_record import KafkaRecord
from sage.connector.kafka_settings import KafkaSettings
from sage.connector.kafka_source import KafkaSource
from sage.connector.parquet_source import ParquetSource, row_converter
from sage.connector.socket import SocketTextSource
from sage.connector.user_function import BatchFunctionSource, GivesRecords, live_source
from sage.core.api.configured_connectors import ConfiguredConnectors
from sage.core.api.datastream import DataStream
from sage.core.api.job_handle import JobHandle
from sage.core.api.overrides import take_overrides
from sage.core.api.recovery_settings import RECOVERY_KEYS
from sage.core.api.service_registration import ServiceRegistration
from sage.core.api.source_checks import (
    check_options,
    check_source_class,
    gives_records,
    kafka_options,
)
from sage.core.api.stream_base import (
    POLICIES,
    Options,
    check_parallelism,
    not_a_policy,
    part_options,
)
from sage.dataflow.function.source import Source, SourceFunction
from sage.dataflow.function.spec import function_spec, refuse_async
from sage.dataflow.graph.event_time import check_event_time
from sage.dataflow.graph.explain import ExplainFormat, explain
from sage.dataflow.graph.job_graph import JobGraph, build_job_graph
from sage.dataflow.graph.stream_graph import build_stream_graph
from sage.dataflow.graph.transformation import Pipeline, Upstream
from sage.dataflow.operator.record_wise import DeadLetterOffice, LoopHead
from sage.dataflow.operator.source import ReadSource
from sage.dataflow.record import DeadLetter
from sage.kernel.checkpoint.checkpoint_config import CheckpointConfig
from sage.kernel.checkpoint.restart_strategy import parse_failover, parse_restart_strategy
from sage.kernel.runtime.service.base_service_task import BaseServiceTask
from sage.kernel.runtime.service.hosting.service_factory import ServiceFactory
from sage.kernel.runtime.service.hosting.service_host import ServiceHost
from sage.kernel.runtime.service.local_service_task import LocalServiceTask
from sage.kernel.runtime.service.middleware import ServiceMiddleware
from sage.kernel.runtime.service.service_caller import ServiceManager
from sage.kernel.state.backend import BackendName, StateBackend

T = TypeVar("T")

_SOURCE_ENTRIES = ("get_data_iterator",)


class BaseEnvironment(ConfiguredConnectors, ABC):
    """Where a program begins: its sources, its settings, its pipeline.

    Args:
        name: The name of the job.
        config: Settings; see `EnvironmentConfig` for the keys.
        clock: Where processing time comes from; tests hand in `sage.testing.ManualClock`.

    Raises:
        ConfigError: the name is no string, a key is unknown, or a value not usable.
    """

    def __init__(
        self, name: str, config: Mapping[str, Any] | None = None, *, clock: Clock | None = None
    ) -> None:
        super().__init__()
        _check_arguments(name, config)
        self.name = name
        self.env_uuid = new_uuid()
        self.logger: logging.Logger = get_logger(name)
        self._overrides = take_overrides()
        self._config = {**(config or {}), **self._overrides}
        self._settings = EnvironmentConfig.parse(self._config, RECOVERY_KEYS)
        self._clock = clock or SystemClock()
        self._pipeline = Pipeline()
        self._services = ServiceHost(name)

    @property
    def pipeline(self) -> Pipeline:
        """The transformations so far, in the order in which they were written."""
        return self._pipeline

    @property
    def config(self) -> dict[str, Any]:
        """The configuration as it was given, with what `sage run --set` has put on top."""
        return self._config

    def set_console_log_level(self, level: str) -> None:
        """Show the log of this environment's jobs on standard error from `level` upwards.

        Raises:
            ValueError: `level` is not one of DEBUG, INFO, WARNING, ERROR, CRITICAL.
        """
        log_to_console(self.logger, level)

    def set_parallelism(self, parallelism: int) -> None:
        """Set how many subtasks an operator has unless it says otherwise.

        Raises:
            GraphError: it is not a whole number of at least 1.
        """
        check_parallelism(parallelism)
        self._configure(parallelism=parallelism)

    def set_max_parallelism(self, max_parallelism: int) -> None:
        """Set how many groups the keys are parted into: the most subtasks that can ever share them.

        A savepoint can be restored at any parallelism up to this, but not with another number.

        Raises:
            ConfigError: it is not a whole number from 1 to 32768.
        """
        self._configure(max_parallelism=max_parallelism)

    def set_buffer_timeout(self, timeout: float | timedelta) -> None:
        """Set how long records wait at most to be sent to another process together.

        Args:
            timeout: Seconds, or a `timedelta`; 0: they are sent with the batch they came of.

        Raises:
            ConfigError: it is negative.
        """
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        self._configure(buffer_timeout=seconds)

    def set_on_error(self, policy: ErrorPolicy) -> None:
        """Set what becomes of a record whose function raises, unless the operator says otherwise.

        Raises:
            ConfigError: it is not one of "fail", "skip", "dead_letter".
        """
        if policy not in POLICIES:
            raise ConfigError(not_a_policy(policy))
        self._configure(on_error=policy)

    def enable_checkpointing(
        self, interval: float | timedelta, path: str | os.PathLike[str], **options: Any
    ) -> None:
        """Keep the state of the job in checkpoints, so that a run that breaks off can be gone on with.

        A job of the same name that finds checkpoints in `path` goes on from the latest; those of a
        job that has finished are removed. With checkpoints, a job that fails is started again under
        its restart strategy, which is then `"exponential-delay"` unless another one is set.

        Args:
            interval: Seconds from the start of one checkpoint to that of the next, or a `timedelta`.
            path: The directory that they are kept in.
            options: Further settings of `CheckpointConfig` by their keys, such as
                `checkpoint_retained=5`, `checkpoint_min_pause=1`.

        Raises:
            ConfigError: a setting is unknown or not usable.
        """
        seconds = interval.total_seconds() if isinstance(interval, timedelta) else interval
        given = {"checkpoint_interval": seconds, "checkpoint_path": os.fspath(path), **options}
        CheckpointConfig.parse(given)
        self._configure(**given)

    def set_restart_strategy(self, strategy: str, **options: Any) -> None:
        """Say whether and when a job that fails is started again.

        Args:
            strategy: `"none"`, `"fixed-delay"`, `"exponential-delay"` or `"failure-rate"`.
            options: The strategy's options, such as `max_attempts=3, restart_delay=1`; and
                `failover_strategy="full"`, to start the whole job again also where a part of it that
                nothing joins with the others has failed.

        Raises:
            ConfigError: the strategy or an option is unknown or not usable.
        """
        given = {"restart_strategy": strategy, **options}
        parse_restart_strategy(given)
        parse_failover(given)
        self._configure(**given)

    def set_state_backend(
        self,
        backend: BackendName,
        directory: str | os.PathLike[str] | None = None,
        *,
        cache_bytes: int | None = None,
    ) -> None:
        """Say what keeps the state that functions declare.

        Args:
            backend: `"heap"`, in memory, which is what there is otherwise; or `"disk"`, in files, for
                state that does not fit into memory; this needs `pip install 'sage-dataflow[state]'`.
            directory: Below it `"disk"` keeps its files, while the job runs: on a local disk; if not
                given, below the system's directory for temporary files.
            cache_bytes: Bytes of memory for each operator on the disk, at least 1 MiB; 128 MiB if
                not given.

        Raises:
            ConfigError: there is no such backend, or a value is not usable.
        """
        given: dict[str, Any] = {"state_backend": backend}
        if directory is not None:
            given["state_directory"] = os.fspath(directory)
        if cache_bytes is not None:
            given["state_cache_bytes"] = cache_bytes
        self._configure(**given)

    @property
    def _state_backend(self) -> StateBackend:
        of = self._settings
        return StateBackend(of.state_backend, of.state_directory, of.state_cache_bytes)

    def _configure(self, **values: Any) -> None:
        values |= self._overrides
        settings = EnvironmentConfig.parse({**self._config, **values}, RECOVERY_KEYS)
        self._config.update(values)
        self._settings = settings

    # ---- services

    @property
    def services(self) -> ServiceHost:
        """The services of this environment; `ServiceManager(env)` calls them."""
        return self._services

    @property
    def service_manager(self) -> ServiceManager:
        """Calls the services of this environment, as `ServiceManager(env)` does."""
        return ServiceManager(self)

    def add_service_middleware(self, middleware: ServiceMiddleware) -> None:
        """Put `middleware` around every call of every service, inside of those that are there.

        Raises:
            ConfigError: services run already.
        """
        self._services.add_middleware(middleware)

    def register_service(
        self, name: str, service: Callable[..., Any] | BaseServiceTask, *args: Any, **kwargs: Any
    ) -> ServiceRegistration:
        """Register a service that functions call as `self.call_service[name].method(...)`.

        Services start before the job's tasks, in the order of their registration, and stop after
        them, in reverse.

        Args:
            name: The name under which it is called.
            service: Any class, or a function that returns the service; or a subclass of
                `BaseServiceTask`, followed by the class of the service; or a service task that does
                not run yet: one of its class and with its factory is started with the job.
            args: Positional arguments of `service`.
            kwargs: Keyword arguments of `service`.

        Returns:
            The registration, whose `.options(isolation="process", replicas=2, ...)` say how it runs.

        Raises:
            ConfigError: the name or the service cannot serve, or one of that name runs already.
        """
        if isinstance(service, BaseServiceTask):
            made = replace(service.service_factory, name=name)
            return ServiceRegistration(self._services, made, type(service))
        task_class: type[BaseServiceTask] = LocalServiceTask
        target: Callable[..., Any] = service
        if isinstance(service, type) and issubclass(service, BaseServiceTask):
            if not args or not callable(args[0]):
                raise ConfigError(
                    f"service {name!r}: after the service task {service.__name__}, give the class "
                    "of the service itself"
                )
            task_class, target, args = service, args[0], args[1:]
        factory = ServiceFactory(name, target, args, kwargs)
        return ServiceRegistration(self._services, factory, task_class)

    def register_service_factory(self, factory: ServiceFactory) -> ServiceRegistration:
        """Register a service by its factory, options included.

        Raises:
            ConfigError: a service of that name runs already.
        """
        return ServiceRegistration(self._services, factory)

    def load_services(self, path: str | os.PathLike[str]) -> list[ServiceRegistration]:
        """Register the services that a YAML file describes.

        `${NAME}` and `${NAME:-default}` in its values stand for environment variables. Keys that are
        known but not in effect yet are told in a warning each.

        Raises:
            ConfigError: the file, or something in it, is not usable; the message names file, line and
                key.
        """
        # What reads YAML is imported by those who have such a file.
        from sage.core.api.service_file import NOT_YET, factories  # noqa: PLC0415
        from sage.kernel.runtime.service.config.service_config import load_service_config  # noqa: PLC0415

        config = load_service_config(path, unsupported=NOT_YET)
        for key in config.unsupported:
            self.logger.warning("%s has no effect in this version of SAGE", key)
        return [self.register_service_factory(factory) for factory in factories(config)]

    # ---- sources

    @overload
    def from_batch(
        self, data: type[SourceFunction[T] | GivesRecords[T]], *args: Any, **kw: Any
    ) -> DataStream[T]: ...
    @overload
    def from_batch(
        self,
        data: SourceFunction[T] | GivesRecords[T] | Iterable[T] | Callable[[], Iterable[T]],
        **options: Any,
    ) -> DataStream[T]: ...
    @overload
    def from_batch(self, data: Any, *args: Any, **kw: Any) -> DataStream[Any]: ...
    def from_batch(self, data: Any, *args: Any, **kw: Any) -> DataStream[Any]:
        """Read data that is at hand and has an end.

        Args:
            data: A list, tuple, set, range, string (by character) or any iterable, which is read as
                the pipeline goes; a `BatchFunction` or any class with `get_data_iterator`, or an
                instance of one; or a callable that returns an iterable.
            args: Arguments of a function class.
            kw: Keyword arguments of a function class; and `name=`, `uid=`.

        Examples:
            >>> from sage import LocalEnvironment
            >>> env = LocalEnvironment("example")
            >>> letters = env.from_batch("abc").collect()
            >>> result = env.execute()
            >>> list(letters)
            ['a', 'b', 'c']
        """
        options, rest = part_options(kw)
        if gives_records(data):
            check_source_class("from_batch", data)
            entries = _entries(data)
            spec = function_spec("from_batch", data, args, rest, entries=entries)
            return self._read(BatchFunctionSource(spec), options, f"from_batch({spec.name})")
        if args or rest:
            raise FunctionError(
                "from_batch(): arguments are for function classes, but the data given is "
                f"{shorten(data)} of type {type(data).__name__}"
            )
        if not isinstance(data, Iterable) and not callable(data):
            raise FunctionError(
                f"from_batch() needs an iterable or a source function, not {shorten(data)} of type "
                f"{type(data).__name__}"
            )
        refuse_async("from_batch", data)
        return self._read(CollectionSource(data), options, "from_batch")

    def from_collection(self, data: Iterable[T], **options: Any) -> DataStream[T]:
        """Read a collection; another name for `from_batch`."""
        return self.from_batch(data, **options)

    @overload
    def from_source(
        self, source: type[SourceFunction[T] | GivesRecords[T]], *args: Any, **kw: Any
    ) -> DataStream[T]: ...
    @overload
    def from_source(
        self,
        source: Source[T] | SourceFunction[T] | GivesRecords[T] | Callable[[], Iterable[T]],
        **options: Any,
    ) -> DataStream[T]: ...
    @overload
    def from_source(self, source: Any, *args: Any, **kw: Any) -> DataStream[Any]: ...
    def from_source(self, source: Any, *args: Any, **kw: Any) -> DataStream[Any]:
        """Read a live source, which may wait for its data and need not end.

        Args:
            source: A `SourceFunction` class or instance; a generator function or another callable
                that returns an iterator; or a connector's `Source`. All but the last run on a thread
                of their own, so they may block.
            args: Arguments of a function class.
            kw: Keyword arguments of a function class; and `name=`, `uid=`.
        """
        options, rest = part_options(kw)
        if isinstance(source, Source):
            return self._read(source, options, type(source).__name__)
        if gives_records(source):
            check_source_class("from_source", source)
        elif not callable(source):
            at_hand = "; data that is at hand is read by from_batch()"
            raise FunctionError(
                "from_source() needs a source function, a callable that returns an iterator, or a "
                f"Source, not {shorten(source)} of type {type(source).__name__}"
                f"{at_hand if isinstance(source, Iterable) else ''}"
            )
        entries = _entries(source)
        spec = function_spec("from_source", source, args, rest, entries=entries)
        return self._read(live_source(spec), options, f"from_source({spec.name})")

    source = from_source

    def from_text_file(
        self, paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], **kw: Any
    ) -> DataStream[str]:
        """Read the lines of text files, without their line ends.

        Args:
            paths: A path, a glob pattern, or several; `.gz` and `.zst` files are decompressed.
            kw: `encoding=`; the settings in `sage.connector.file.TextFileOptions`; `name=`, `uid=`.

        Raises:
            SourceError: (when the job starts) there is no such file.
        """
        options, rest = part_options(kw)
        check_options("from_text_file", TextFileSource, rest, TextFileOptions)
        return self._read(TextFileSource(paths, **rest), options, "from_text_file")

    def from_csv(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        delimiter: str = ",",
        header: bool | list[str] = True,
        encoding: str = "utf-8-sig",
        **kw: Any,
    ) -> DataStream[dict[str, str]]:
        """Read the rows of CSV files as dicts of strings.

        Args:
            paths: A path, a glob pattern, or several; `.gz` and `.zst` files are decompressed.
            delimiter: What is between two columns.
            header: True: the first row names the columns. False: they are "0", "1" …. Or the names.
            encoding: That of the files; a byte order mark is passed over.
            kw: The settings in `sage.connector.file.TextFileOptions`; `name=`, `uid=`; `on_error=`
                for rows that do not fit the header.
        """
        options, rest = part_options(kw)
        check_options("from_csv", CsvSource, rest, TextFileOptions)
        on_error = options.pop("on_error", None)
        source = CsvSource(paths, delimiter=delimiter, header=header, encoding=encoding, **rest)
        rows = self._read(source, options, "from_csv")
        return rows.map(csv_row_to_dict, name="csv row", on_error=on_error)

    def from_jsonl(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        type: Any = None,  # noqa: A002 - as in msgspec
        **kw: Any,
    ) -> DataStream[Any]:
        """Read JSON Lines files: a JSON value on each line; blank lines are passed over.

        Args:
            paths: A path, a glob pattern, or several; `.gz` and `.zst` files are decompressed.
            type: What each line is checked against and turned into: a dataclass, a TypedDict, a
                msgspec Struct ….
            kw: The settings in `sage.connector.file.TextFileOptions`; `name=`, `uid=`; `on_error=`
                for lines that are not valid.

        Raises:
            FunctionError: JSON cannot be turned into `type`.
        """
        options, rest = part_options(kw)
        check_options("from_jsonl", TextFileSource, rest, TextFileOptions)
        try:
            decode = json_line_decoder(type)
        except TypeError as error:
            raise FunctionError(f"from_jsonl(): type cannot be {shorten(type)}: {error}") from None
        on_error = options.pop("on_error", None)
        lines = self._read(TextFileSource(paths, **rest), options, "from_jsonl")
        full = lines.filter(is_not_blank, name="not blank")
        return full.map(decode, name="json line", on_error=on_error)

    def from_parquet(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        columns: Sequence[str] | None = None,
        type: Any = None,  # noqa: A002 - as in msgspec
        **kw: Any,
    ) -> DataStream[Any]:
        """Read the rows of Parquet files as dicts. Needs the extra `parquet`.

        Args:
            paths: A path, a glob pattern, or several.
            columns: The columns to read; all by default.
            type: What each row is checked against and turned into: a dataclass, a TypedDict, a
                msgspec Struct ….
            kw: `split_row_groups=`, `watch=`; `name=`, `uid=`; `on_error=` for rows that are not of
                the type.

        Raises:
            FunctionError: rows cannot be turned into `type`.
            SourceError: pyarrow is not installed.
        """
        options, rest = part_options(kw)
        check_options("from_parquet", ParquetSource, rest)
        on_error = options.pop("on_error", None) if type is not None else None
        rows = self._read(ParquetSource(paths, columns=columns, **rest), options, "from_parquet")
        if type is None:
            return rows
        try:
            convert = row_converter(type)
        except TypeError as error:
            raise FunctionError(f"from_parquet(): type cannot be {type}: {error}") from None
        return rows.map(convert, name="parquet row", on_error=on_error)

    def from_socket_text_stream(
        self, host: str, port: int, delimiter: str = "\n", **kw: Any
    ) -> DataStream[str]:
        """Read lines from a TCP server until it closes the connection. Cannot be replayed."""
        options, rest = part_options(kw)
        check_options("from_socket_text_stream", SocketTextSource, rest)
        source = SocketTextSource(host, port, delimiter=delimiter, **rest)
        return self._read(source, options, f"from_socket_text_stream({host}:{port})")

    def from_kafka_source(  # noqa: PLR0917 - in the order that the requirement documents give
        self,
        bootstrap_servers: str | Iterable[str] | KafkaSettings,
        topic: str | Iterable[str] | re.Pattern[str],
        group_id: str,
        auto_offset_reset: Reset = "latest",
        value_deserializer: Deserializer = "json",
        buffer_size: int = 10_000,
        max_poll_records: int = 500,
        **kw: Any,
    ) -> DataStream[KafkaRecord]:
        """Read topics of Kafka; each record has `value`, `key`, `topic`, `partition`, `offset` ….

        Args:
            bootstrap_servers: `"host:port"`, several with commas between them; or `KafkaSettings`.
            topic: A topic, a list of topics, or a pattern such as `"^events-.*"`.
            group_id: The consumer group for which offsets are committed.
            auto_offset_reset: Where to begin if the group has committed nothing: `"latest"`,
                `"earliest"`, or `"none"`, which is an error.
            value_deserializer: `"json"`, `"string"`, `"bytes"`, a function of the bytes, or a
                `SchemaDeserializer`.
            buffer_size: How many records are read ahead.
            max_poll_records: How many records are taken from the client at once.
            kw: Further options of `KafkaSource`, such as `start=`, `stop=`, `discovery_interval=`;
                `on_error=` for records that cannot be decoded; `name=`, `uid=`, `parallelism=`; and
                properties of the client with `_` for `.`, such as `security_protocol="SSL"`.

        Raises:
            FunctionError: an option is not known, or its value not usable.
            ConfigError: an address or a property cannot be one.
            SourceError: (when the job starts) the brokers do not answer, or there is no such topic.

        Examples:
            >>> from sage import LocalEnvironment
            >>> env = LocalEnvironment("events")
            >>> events = env.from_kafka_source("localhost:9092", "events", "reports")
            >>> values = events.map(lambda record: record.value).collect()
            >>> env.explain().splitlines()[1]
            'task 1: from_kafka_source'
        """
        options, rest = part_options(kw)
        source = KafkaSource(
            bootstrap_servers,
            topic,
            group_id,
            auto_offset_reset=auto_offset_reset,
            value_deserializer=value_deserializer,
            buffer_size=buffer_size,
            max_poll_records=max_poll_records,
            **kafka_options("from_kafka_source", rest),
        )
        return self._read(source, options, "from_kafka_source")

    def from_future(self, name: str) -> DataStream[Any]:
        """Begin a feedback loop: the stream of what will come back.

        Close the loop with `stream.fill_future(future)`. When all sources have ended and nothing is
        in flight in the loop, the job ends.

        Examples:
            >>> from sage import LocalEnvironment
            >>> env = LocalEnvironment("collatz")
            >>> back = env.from_future("back")
            >>> step = lambda n: n // 2 if n % 2 == 0 else 3 * n + 1
            >>> steps = env.from_batch([6]).union(back).map(step)
            >>> steps.filter(lambda n: n != 1).fill_future(back)
            >>> seen = steps.collect()
            >>> result = env.execute()
            >>> list(seen)
            [3, 10, 5, 16, 8, 4, 2, 1]
        """
        return DataStream(self, (Upstream(self._pipeline.append(LoopHead((), name))),))

    def dead_letters(self) -> DataStream[DeadLetter]:
        """Return the stream of the dead letters of all operators of the job."""
        office = DeadLetterOffice((), "dead letters")
        return DataStream(self, (Upstream(self._pipeline.append(office, on_error="fail")),))

    def _read(self, source: Source[Any], options: Options, name: str) -> DataStream[Any]:
        if options.get("on_error") is not None and not source.reports_bad_records:
            raise FunctionError(
                "a source takes no on_error: what it cannot read ends the job; let it give the raw "
                "records, and parse them in a map(..., on_error=...)"
            )
        step = self._pipeline.append(ReadSource((), source, name), **options)
        return DataStream(self, (Upstream(step),))

    # ---- the plan

    def explain(self, format: ExplainFormat = "text") -> str:  # noqa: A002 - the usual word
        """Return the plan: as text, as a `"mermaid"` diagram, or in Graphviz's `"dot"`.

        Raises:
            GraphError: the program cannot run; the message says why.
        """
        return explain(self._plan(), format)

    def _plan(self) -> JobGraph:
        graph = build_stream_graph(self.name, self._pipeline, self._settings)
        check_event_time(graph)
        return build_job_graph(graph)

    @abstractmethod
    def submit_async(self) -> JobHandle:
        """Start the pipeline and return at once."""

    @abstractmethod
    def submit_detached(self) -> JobHandle:
        """Start the pipeline as a job that ends with the process at the latest."""


def _check_arguments(name: object, config: object) -> None:
    if not isinstance(name, str):
        raise ConfigError(f"the name of an environment is a string, not {shorten(name)}")
    if not (config is None or isinstance(config, Mapping)):
        raise ConfigError(f"the configuration is a dict of settings, not {shorten(config)}")


def _entries(function: Any) -> tuple[str, ...]:
    cls = function if isinstance(function, type) else type(function)
    return _SOURCE_ENTRIES if hasattr(cls, "get_data_iterator") else ("execute",)
