"""The core batch operators: a function over a whole batch, and a sink that writes batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from sage.dataflow.function.context import RuntimeContext
from sage.dataflow.function.sink import Sink, SinkWriter
from sage.dataflow.operator.base import BatchOperator, BatchProcessor

BatchFormat = Literal["list", "numpy", "arrow"]


@dataclass(frozen=True, eq=False)
class MapBatch(BatchOperator):
    """Hands whole batches to a function, as a list, a NumPy array or an Arrow array or table."""

    kind: ClassVar[str] = "map_batch"
    format: BatchFormat = "list"

    def create(
        self, entries: list[Callable[..., Any]], context: RuntimeContext, state: Any = None
    ) -> BatchProcessor:
        """Bind the function to the conversions of the format."""
        return _MapBatchProcessor(entries[0], _ENCODERS[self.format])


class _MapBatchProcessor(BatchProcessor):
    def __init__(self, function: Callable[[Any], Any], encode: Callable[[list[Any]], Any]) -> None:
        self._function = function
        self._encode = encode

    def process_batch(self, values: list[Any]) -> list[Any]:
        """Convert, call, convert back."""
        return _to_list(self._function(self._encode(values)))


def _to_numpy(values: list[Any]) -> Any:
    import numpy as np  # an extra: imported only by the job that asks for it  # noqa: PLC0415

    return np.asarray(values)


def _to_arrow(values: list[Any]) -> Any:
    import pyarrow as pa  # an extra: imported only by the job that asks for it  # noqa: PLC0415

    if values and isinstance(values[0], dict):
        return pa.RecordBatch.from_pylist(values)
    return pa.array(values)


def _to_list(result: Any) -> list[Any]:
    """Return the records of what a batch function returned.

    Raises:
        TypeError: it returned nothing, or something that is no sequence of records.
    """
    for method in ("to_pylist", "tolist"):  # Arrow, NumPy
        if hasattr(result, method):
            converted = getattr(result, method)()
            return converted if isinstance(converted, list) else [converted]
    if result is None or isinstance(result, (str, bytes, dict)):
        raise TypeError(
            "a batch function returns a list, an iterable, a NumPy array or Arrow data with the "
            f"records that go on ([] for none), not {type(result).__name__}"
        )
    return list(result)


_ENCODERS: dict[BatchFormat, Callable[[list[Any]], Any]] = {
    "list": lambda values: values,
    "numpy": _to_numpy,
    "arrow": _to_arrow,
}


@dataclass(frozen=True, eq=False)
class WriteSink(BatchOperator):
    """Hands whole batches to the writer of a `Sink`."""

    kind: ClassVar[str] = "sink"
    sink: Sink[Any] | None = None

    @property
    def label(self) -> str:
        """The name of the operator unless the user gives another."""
        return f"{self.kind}({type(self.sink).__name__})"

    @property
    def at_client(self) -> bool:
        """Whether it gives the records back to the program that submits the job."""
        return self.sink is not None and self.sink.at_client

    def create(
        self, entries: list[Callable[..., Any]], context: RuntimeContext, state: Any = None
    ) -> BatchProcessor:
        """Open the writer."""
        if self.sink is None:
            raise ValueError("WriteSink needs a sink")
        return _WriterProcessor(self.sink.create_writer(context, state))


class _WriterProcessor(BatchProcessor):
    def __init__(self, writer: SinkWriter[Any]) -> None:
        self.writer = self._writer = writer

    def process_batch(self, values: list[Any]) -> list[Any]:
        """Write; nothing goes out."""
        self._writer.write_batch(values)
        return []

    def end(self) -> list[Any]:
        """Make sure that everything is outside."""
        self._writer.end_input()
        return []

    def close(self) -> None:
        """Close the writer."""
        self._writer.close()
