"""A segment: one generated function, compiled; and the ports by which records enter it.

The text of a segment is registered with `linecache`, so that a traceback shows the generated line
with the name of its operator beside it.
"""

from __future__ import annotations

import itertools
import linecache
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from operator import length_hint
from typing import Any

from sage.common.errors import OperatorError
from sage.dataflow.graph.stream_graph import StreamNode
from sage.dataflow.operator.loop_writer import LineOrigin, LoopWriter
from sage.kernel.runtime.task.checked_entry import CheckedEntry
from sage.kernel.runtime.task.counters import Counters
from sage.kernel.runtime.task.failure import USER_ERRORS, locate

Deliver = Callable[[Sequence[Any]], None]
"""Takes a batch."""

BATCH_LIMIT = 1024
"""How many records one record may become before they are passed on."""

_numbers = itertools.count(1)


class Port:
    """Where records wait, within one batch, for the segment that takes them on.

    Attributes:
        pending: The records that have come since the last delivery.
        append: Adds a record and leaves the delivery to the end of the loop.
    """

    def __init__(self, ready: deque[Port]) -> None:
        self.pending: list[Any] = []
        self.append = self.pending.append
        self.deliver: Deliver | None = None
        self._ready = ready

    def put(self, value: Any) -> None:
        """Add a record."""
        self.pending.append(value)
        if len(self.pending) >= BATCH_LIMIT:
            self.flush()

    def schedule(self) -> None:
        """Let what is pending be delivered when the loop at hand is done."""
        if self.pending:
            self._ready.append(self)

    def flush(self) -> None:
        """Deliver what is pending, and what comes of it, now: the loop at hand has a lot to give."""
        self.take()
        drain(self._ready)

    def take(self) -> None:
        """Deliver what is pending. The list stays the same one: loops hold on to its `append`."""
        if self.pending and self.deliver is not None:
            values = self.pending[:]
            self.pending.clear()
            self.deliver(values)


class KeyedPort(Port):
    """Where records wait that go to other slots by key, or to a port of this one.

    Args:
        ready: The ports that are to deliver.
        places: What takes the records of a key.
        settle: Sends on what has been gathered for other slots, if it is enough.
        here: The port of those records that stay; None: none do.
    """

    def __init__(
        self,
        ready: deque[Port],
        places: Mapping[Any, Callable[[Any], object]],
        settle: Callable[[], None],
        here: Port | None,
    ) -> None:
        super().__init__(ready)
        self.places = places
        self._settle = settle
        self._here = here

    def schedule(self) -> None:
        """Let what stays be delivered when the loop at hand is done; send the rest if it is enough."""
        self._settle()
        if self._here is not None:
            self._here.schedule()

    def flush(self) -> None:
        """Deliver what stays, and what comes of it, now; send the rest if it is enough."""
        self.schedule()
        drain(self._ready)


def drain(ready: deque[Port]) -> None:
    """Deliver what is pending in the ports that are ready, and in those that become so."""
    while ready:
        ready.popleft().take()


class Segment:
    """A compiled loop.

    Args:
        writer: Its text and what the names in it stand for.
        nodes: The operators of the task.
        counters: Where the task counts.
        slot: Where the records are counted that have been through the loop.
    """

    def __init__(
        self, writer: LoopWriter, nodes: dict[int, StreamNode], counters: Counters, slot: int
    ) -> None:
        self._counts, self._slot = counters.values, slot
        counts = writer.bind("counts", counters.values)
        number = next(_numbers)
        name, filename = f"fused_{number}", f"<sage segment {number}>"
        text = writer.source(name, counts)
        namespace = dict(writer.bindings)
        exec(compile(text, filename, "exec"), namespace)  # noqa: S102 - the text is our own
        self.text = text
        self._function = namespace[name]
        self._is_checking = True
        self._nodes = nodes
        self._origins = writer.origins
        lines = _annotated(text, writer.origins, nodes)
        linecache.cache[filename] = (len(text), None, lines, filename)
        self._filename = filename

    def run(self, values: Sequence[Any]) -> None:
        """Take a batch through the loop.

        Raises:
            OperatorError: a function failed under the policy `"fail"`.
        """
        records, through = iter(values), -1  # the record at which a loop breaks off is not through
        try:
            self._function(records)
            through = 0
            if self._is_checking:
                self._leave_out_checks()
        except OperatorError:
            raise
        except USER_ERRORS as error:
            told = locate(error, self._function.__code__, self._origins, self._nodes)
            if told is None:
                raise
            raise told from told.__cause__
        finally:
            # Counted afterwards, and by what the iterator has left: the loop pays nothing for it.
            through += len(values) - length_hint(records)
            self._counts[self._slot] += max(0, through)

    def _leave_out_checks(self) -> None:
        """Let the loop call those functions directly whose results have been seen to be plain."""
        bound = [_unchecked(value) for value in self._function.__defaults__]
        self._function.__defaults__ = tuple(bound)
        self._is_checking = any(isinstance(value, CheckedEntry) for value in bound)

    def forget(self) -> None:
        """Let go of what the loop holds, and of the text that was registered for tracebacks."""
        linecache.cache.pop(self._filename, None)
        # An exception may hold on to the function's frame.
        self._function.__defaults__ = None
        self._function.__globals__.clear()


def _unchecked(value: Any) -> Any:
    return value.function if isinstance(value, CheckedEntry) and value.passed else value


def _annotated(
    text: str, origins: dict[int, LineOrigin], nodes: dict[int, StreamNode]
) -> list[str]:
    lines = text.splitlines()
    for number, origin in origins.items():
        lines[number - 1] += f"  # {nodes[origin.node].name}"
    return [line + "\n" for line in lines]
