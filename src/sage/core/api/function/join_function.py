"""`BaseJoinFunction`: joins the records of two keyed streams."""

from sage.dataflow.function.join import BaseJoinFunction

__all__ = ["BaseJoinFunction"]
