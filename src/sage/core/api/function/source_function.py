"""`SourceFunction`, and the `Source` contract for connectors."""

from sage.dataflow.function.source import Source, SourceFunction, SourceReader, StopSignal

__all__ = ["Source", "SourceFunction", "SourceReader", "StopSignal"]
