"""`CoMapFunction`: a method per input of connected streams."""

from sage.dataflow.function.transform import BaseCoMapFunction, CoFlatMapFunction, CoMapFunction

__all__ = ["BaseCoMapFunction", "CoFlatMapFunction", "CoMapFunction"]
