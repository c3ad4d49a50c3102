"""`BroadcastProcessFunction`: a stream of records beside a stream of rules that everybody knows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Generic, TypeVar

from sage.dataflow.function.base import BaseFunction
from sage.dataflow.function.transform import KeylessContext, ProcessContext

T = TypeVar("T")
B = TypeVar("B")
R = TypeVar("R")


class BroadcastProcessFunction(BaseFunction, Generic[T, B, R]):
    """Processes the records of a stream by rules that come on a second one and are known to all.

    Use it as `stream.connect(rules.broadcast()).process(Function)`. Every parallel instance gets all
    records of the second stream and keeps what they say in a `BroadcastState`, which only
    `process_broadcast_element` may change: as all instances see the same records there, all have the
    same state. It must not depend on anything else, such as the state of a key, the clock or chance.

    If the first stream has keys, `process_element` has state of its key and timers, as in a
    `ProcessFunction`. Which stream is read first is not defined.

    Examples:
        >>> from sage import BroadcastProcessFunction, BroadcastState, LocalEnvironment
        >>> class Convert(BroadcastProcessFunction):
        ...     rates = BroadcastState(str, float)
        ...     def process_broadcast_element(self, value, ctx):
        ...         currency, rate = value
        ...         self.rates[currency] = rate
        ...     def process_element(self, value, ctx):
        ...         amount, currency = value
        ...         yield amount * self.rates.get(currency, 1.0)
        >>> env = LocalEnvironment("example")
        >>> rates = env.from_batch([("EUR", 2.0)])
        >>> amounts = env.from_batch([(5, "USD"), (5, "CHF")])
        >>> converted = amounts.connect(rates.broadcast()).process(Convert).collect()
        >>> result = env.execute()
        >>> list(converted)
        [5.0, 5.0]
    """

    entry_points: ClassVar[tuple[str, ...]] = ("process_element", "process_broadcast_element")

    @abstractmethod
    def process_element(self, value: T, ctx: ProcessContext) -> Iterable[R] | None:
        """Return or yield what a record of the first stream becomes; `None` stands for nothing.

        Broadcast state can be read here, and not changed.
        """
        raise NotImplementedError

    @abstractmethod
    def process_broadcast_element(self, value: B, ctx: KeylessContext) -> Iterable[R] | None:
        """Take a record of the broadcast stream; return or yield what goes on.

        Broadcast state can be changed here. There is no key, and no state of one.
        """
        raise NotImplementedError

    def on_timer(self, timestamp: int, ctx: ProcessContext) -> Iterable[R] | None:
        """Return or yield records for the main output, now that a timer is due.

        Broadcast state can be read here, and not changed.

        Args:
            timestamp: The time for which the timer was registered, in ms.
            ctx: As for `process_element`; its key is that of the timer.
        """
        return None

    def on_end(self, ctx: KeylessContext) -> Iterable[R] | None:
        """Return or yield records for the main output, now that both inputs have ended.

        As in a `ProcessFunction`. Broadcast state can be read here, and not changed.
        """
        return None


KeyedBroadcastProcessFunction = BroadcastProcessFunction
"""The name by which Flink's users know it when the first stream has keys; it is the same class."""
