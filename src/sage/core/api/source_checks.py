"""Checks of what is given to the methods that begin a stream, made where the program is written."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from sage.common.errors import FunctionError
from sage.common.suggest import did_you_mean
from sage.connector.kafka_source import KafkaSourceOptions
from sage.dataflow.function.base import BaseFunction
from sage.dataflow.function.source import Source, SourceFunction
from sage.dataflow.function.spec import OPERATOR_OPTIONS


def gives_records(target: object) -> bool:
    """Say whether `target` is a source function: a class or an instance that gives records."""
    cls = target if isinstance(target, type) else type(target)
    return hasattr(cls, "get_data_iterator") or (
        issubclass(cls, BaseFunction) and hasattr(cls, "execute")
    )


def check_source_class(role: str, target: object) -> None:
    """Check that a source function defines one of the two methods that give records.

    Raises:
        FunctionError: it defines neither.
    """
    cls = target if isinstance(target, type) else type(target)
    inherited = getattr(cls, "get_data_iterator", None) is SourceFunction.get_data_iterator
    if inherited and getattr(cls, "execute", None) is SourceFunction.execute:
        raise FunctionError(
            f"{role}(): {cls.__name__} defines neither get_data_iterator() nor execute()"
        )


def check_options(
    role: str, source: type[Source[Any]], given: Mapping[str, Any], rarer: type | None = None
) -> None:
    """Check that a connector takes all keyword arguments that are given for it.

    Args:
        role: The method that they are given to.
        source: The connector.
        given: The arguments.
        rarer: The `TypedDict` of those that its constructor takes as `**options`.

    Raises:
        FunctionError: it does not; the message names the nearest one.
    """
    named = inspect.signature(source).parameters.values()
    known = [p.name for p in named if p.kind is not inspect.Parameter.VAR_KEYWORD]
    known += [*(rarer.__annotations__ if rarer else ()), *OPERATOR_OPTIONS]
    for name in given:
        if name not in known:
            raise FunctionError(f"{role}(): unknown option {name!r}.{did_you_mean(name, known)}")


def kafka_options(role: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Part the options of a `KafkaSource` from the properties of its client that stand among them.

    Raises:
        FunctionError: one is neither, as far as can be told without the client.

    Examples:
        >>> kafka_options("from_kafka_source", {"stop": "latest", "fetch_min_bytes": 1024})
        {'stop': 'latest', 'properties': {'fetch.min.bytes': 1024}}
    """
    known = KafkaSourceOptions.__annotations__
    options = {name: value for name, value in given.items() if name in known}
    properties = {}
    for name in given.keys() - options.keys():
        near = did_you_mean(name, [*known, *OPERATOR_OPTIONS])
        if near or "_" not in name:
            raise FunctionError(f"{role}(): unknown option {name!r}.{near}")
        properties[name.replace("_", ".")] = given[name]
    if properties:
        options["properties"] = {**properties, **options.get("properties", {})}
    return options
