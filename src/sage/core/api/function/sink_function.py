"""`SinkFunction`, and the `Sink` contract for connectors."""

from sage.dataflow.function.sink import Sink, SinkFunction, SinkWriter

__all__ = ["Sink", "SinkFunction", "SinkWriter"]
