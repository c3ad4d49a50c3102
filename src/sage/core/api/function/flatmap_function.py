"""`FlatMapFunction` and its `Collector`: any number of records out."""

from sage.dataflow.function.transform import Collector, FlatMapFunction

__all__ = ["Collector", "FlatMapFunction"]
