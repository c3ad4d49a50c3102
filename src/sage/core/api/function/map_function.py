"""`MapFunction`: one record in, one record out."""

from sage.dataflow.function.transform import MapFunction

__all__ = ["MapFunction"]
