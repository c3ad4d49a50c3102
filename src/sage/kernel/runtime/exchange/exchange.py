"""`SlotExchange`: one slot's end of all exchanges.

What a slot sends to another arrives in order: batches, how far event time has come, and that nothing
more will come through an exchange. So a slot that hears of a time has all the records before it.

A slot whose channel is full waits. Meanwhile it takes in what others have sent to it, without working
on it: otherwise two slots that wait for each other would wait for ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from sage.common.errors import JobError, MessageTooLargeError
from sage.common.suggest import shorten
from sage.dataflow.graph.execution_graph import Exchange, ExecutionGraph
from sage.kernel.runtime.exchange.alignment import Alignment
from sage.kernel.runtime.exchange.figures import SlotMeter
from sage.kernel.runtime.exchange.frames import FrameKind, can_be_sent, read_frame, write_frame
from sage.kernel.runtime.exchange.links import Links
from sage.kernel.runtime.exchange.loop_traffic import LoopTraffic
from sage.kernel.runtime.exchange.routing import (
    KeyPlaces,
    Refuse,
    Take,
    make_router,
    raise_at_once,
)

Deliver = Callable[[Sequence[Any]], None]
Time = tuple[int, bool]
"""How far the time of an operator has come, in milliseconds, and whether it is idle."""

_PATIENCE: Final = 0.005
_MOST_GATHERED: Final = 1_024
_FEWEST_GATHERED: Final = 16
_LONG_SECONDS: Final = 0.2
_FRAME_BYTES: Final = 128 << 10
_MOST_WAITING: Final = 1_000
_MANY_WAITING: Final = 16
_SLOWEST_PATIENCE: Final = 1.0


class Receiver(Protocol):
    """What a slot does with what comes to it."""

    def take_batch(self, exchange: int, values: Sequence[Any]) -> None:
        """Take records that have come through an exchange."""
        ...

    def take_times(self, slot: int, times: Mapping[int, Time]) -> None:
        """Take note of how far the time of operators of another slot has come."""
        ...

    def is_full(self) -> bool:
        """Say whether nothing more should come for now."""
        ...


@dataclass
class _Way:
    """One exchange, as a sender sees it.

    Attributes:
        exchange: The exchange.
        wrapped: Whether a record travels as a tuple, its key or its time behind it.
        pending: The records gathered for each of the other slots.
        enough: How many of them are sent together: as many as make a frame of a good size.
        most: How many that are at most; fewer for a receiver that takes long for each frame.
    """

    exchange: Exchange
    wrapped: bool
    pending: Mapping[int, list[Any]]
    enough: int
    most: int


class SlotExchange:
    """Sends and receives for one slot. For the slot's thread alone.

    Args:
        graph: The subtasks and what joins them.
        slot: Whose end this is.
        links: The channels.
        batch_size: How many records of a receiver are gathered at most before they are sent; never
            more than 1,024, or 128 KiB: what a processor's cache holds.
        buffer_timeout: How many seconds they are gathered at most.
        monotonic: The clock.

    Attributes:
        meter: What it does with its time, and what it sends.
        count: Counts for an operator: its number, what, how many of it.
        check_cancelled: Called while it waits for room; raises when the slot is being cancelled.
        times: Returns how far the time of operators of this slot has come; all records before it have
            been given to exchanges by then.
    """

    def __init__(
        self,
        graph: ExecutionGraph,
        slot: int,
        links: Links,
        *,
        batch_size: int,
        buffer_timeout: float,
        monotonic: Callable[[], float],
    ) -> None:
        self.graph = graph
        self.slot = slot
        self.links = links
        self.meter = SlotMeter(slot, monotonic)
        self.count: Callable[[int, str, int], object] = lambda *_: None
        self._in_flight_bytes = 0
        self._batch_size = min(batch_size, _MOST_GATHERED)
        self._buffer_timeout = buffer_timeout
        self._monotonic = monotonic
        self.check_cancelled: Callable[[], None] = lambda: None
        self._ways: dict[int, _Way] = {}
        self._since: float | None = None  # when something may first have waited to be sent
        self._inbox: deque[tuple[int, bytes]] = deque()
        self._held: deque[tuple[int, bytes]] = deque()
        self._open_senders = {
            e.number: {sender for sender in e.senders if sender != slot}
            for e in graph.exchanges
            if slot in e.receivers
        }
        self._told: dict[int, Time] = {}
        self.times: Callable[[], Mapping[int, Time]] = dict
        self._over: set[int] = set()
        self._alignment = Alignment(graph, slot)
        self._loops = LoopTraffic(graph, slot)
        self._is_behind = False
        self._behind: set[int] = set()
        self._aligning_since = 0.0

    # ---- sending

    def sender(
        self,
        exchange: Exchange,
        deliver: Deliver | None,
        *,
        packed: bool,
        refuse: Refuse = raise_at_once,
    ) -> Deliver:
        """Return what takes the batches that go into an exchange.

        Args:
            exchange: The exchange.
            deliver: Takes those records that stay in this slot; None if it receives none.
            packed: Whether a record travels as a tuple, its key or its time behind it.
            refuse: Takes a value that has no place, and why.
        """
        route = make_router(exchange, packed=packed, first=self.slot, refuse=refuse)
        way = self._way(exchange, wrapped=packed)

        def send(values: Sequence[Any]) -> None:
            for index, part in route(values):
                slot = exchange.receivers[index]
                if slot == self.slot:
                    assert deliver is not None
                    deliver(part)
                else:
                    way.pending[slot].extend(part)
            self._send_full(way)

        return send

    def keyed_sender(
        self, exchange: Exchange, take: Take | None
    ) -> tuple[KeyPlaces, Callable[[], None]]:
        """Return who takes the records that go into an exchange by their keys, one by one.

        Args:
            exchange: The exchange, of the spread `"hash"`.
            take: Takes those records that stay in this slot; None if it receives none.

        Returns:
            What takes the records of a key, by the key; and what is called now and then, at the
            latest when a thousand or so have been put in, to send what is enough.
        """
        way = self._way(exchange, wrapped=True)
        takers = [
            take if slot == self.slot and take is not None else way.pending[slot].append
            for slot in exchange.receivers
        ]
        places = KeyPlaces(self.graph.max_parallelism, takers)
        return places, partial(self._send_full, way)

    def _way(self, exchange: Exchange, *, wrapped: bool) -> _Way:
        pending: dict[int, list[Any]] = {s: [] for s in exchange.receivers if s != self.slot}
        way = self._ways[exchange.number] = _Way(
            exchange, wrapped, pending, self._batch_size, self._batch_size
        )
        return way

    def _send_full(self, way: _Way) -> None:
        """Send what has been gathered for those slots for which it is enough."""
        for slot, waiting in way.pending.items():
            if len(waiting) >= way.enough:
                self._send_pending(way, slot, waiting)

    def _send_pending(self, way: _Way, slot: int, waiting: list[Any]) -> None:
        start = 0
        while start < len(waiting):
            part = waiting[start : start + way.enough]
            start += len(part)
            self._send_batch(way, slot, part)
        waiting.clear()  # the list stays the same one: loops hold on to its `append`

    def flush_old(self) -> None:
        """Send what has been gathered for long enough."""
        since, now = self._since, self._monotonic()
        if since is None:
            self._since = now
        elif now - since >= self._buffer_timeout:
            self.flush()

    def flush(self) -> None:
        """Send all that has been gathered, and how far the time of operators of this slot has come."""
        self._since = None
        for way in self._ways.values():
            for slot, waiting in way.pending.items():
                if waiting:
                    self._send_pending(way, slot, waiting)
        news = {node: time for node, time in self.times().items() if self._told.get(node) != time}
        if news:
            self._told |= news
            frame = write_frame(FrameKind.TIME, 0, news)
            for slot in self.links.receivers:
                self._send(slot, frame)
                self._loops.sent_times(news, slot)

    def end(self, node: int) -> None:
        """Say that an operator of this slot sends nothing more."""
        ending = [
            e for e in self.graph.exchanges if e.edge.source == node and self.slot in e.senders
        ]
        if ending:
            self.flush()
        for exchange in ending:
            self._over.add(exchange.number)
            for slot in exchange.receivers:
                if slot != self.slot:
                    self._send(slot, write_frame(FrameKind.END, exchange.number, None))

    def _send_batch(self, way: _Way, slot: int, values: list[Any]) -> None:
        try:
            frame = write_frame(FrameKind.BATCH, way.exchange.number, values, wrapped=way.wrapped)
        except Exception as error:
            raise self._unsendable(way.exchange, values, error) from error
        fitting = _FRAME_BYTES * len(values) // len(frame)
        way.enough = max(1, min(fitting, way.most))
        began = self._monotonic()
        try:
            self._send(slot, frame)
            self.count(way.exchange.edge.source, "bytes_out", len(frame))
            self._loops.sent(way.exchange.number)
        except MessageTooLargeError as error:
            if len(values) == 1:
                raise self._unsendable(way.exchange, values, error) from error
            half = len(values) // 2
            self._send_batch(way, slot, values[:half])
            self._send_batch(way, slot, values[half:])
        waited = self._monotonic() - began
        if waited > _LONG_SECONDS:
            way.most = max(_FEWEST_GATHERED, way.most // 2)
        elif waited < _PATIENCE:
            way.most = min(2 * way.most, self._batch_size)

    def _send(self, slot: int, frame: bytes) -> None:
        if not self.links.send(slot, frame, 0.0):
            began = self._monotonic()
            self.meter.blocked.start()
            while not self.links.send(slot, frame, _PATIENCE):
                self.check_cancelled()
                # With very much taken in already, others are let wait; not for ever, in case that
                # this slot waits for them.
                waited = self._monotonic() - began
                if len(self._inbox) < _MOST_WAITING or waited > _SLOWEST_PATIENCE:
                    self._inbox.extend(self.links.receive(self._alignment.complete_slots))
            self.meter.blocked.stop()
        self.meter.frames_sent += 1
        self.meter.bytes_sent += len(frame)

    def _unsendable(self, exchange: Exchange, values: list[Any], error: Exception) -> JobError:
        nodes, edge = self.graph.stream_graph.nodes, exchange.edge
        record = next((value for value in values if not can_be_sent(value)), values[0])
        return JobError(
            f"a record cannot go from {nodes[edge.source].name} to {nodes[edge.target].name} in "
            f"another process: {error}; the record: {shorten(record)}"
        )

    # ---- receiving

    def receive(self, receiver: Receiver) -> bool:
        """Hand what has come to `receiver`; say whether there was something.

        One that is full is handed nothing, but for a checkpoint, which all have to come to.
        """
        moved = False
        if not self._inbox and not self._waits(receiver):
            self._inbox.extend(self.links.receive(self._alignment.complete_slots))
        while self._inbox and not self._waits(receiver):
            slot, frame = self._inbox.popleft()
            if slot in self._alignment.complete_slots:
                self._held.append((slot, frame))  # it comes after the checkpoint
            else:
                moved = True
                self._take_frame(slot, frame, receiver)
        if self._loops.others:
            self._tell_behind(receiver)
        return moved

    def _tell_behind(self, receiver: Receiver) -> None:
        """Tell the other slots of loops when this one falls behind, and when it has caught up."""
        many = 1 if self._is_behind else _MANY_WAITING
        is_behind = len(self._inbox) >= many or (self._is_behind and receiver.is_full())
        if is_behind != self._is_behind:
            self._is_behind = is_behind
            for slot in self._loops.others:
                self._send(slot, write_frame(FrameKind.FULL, 0, is_behind))

    @property
    def is_held_up(self) -> bool:
        """Whether sources would only make it worse: another slot has enough, or is behind in a loop.

        A slot that sends all the same would stand still in the midst of a batch, and not work on what
        the others wait to be rid of.
        """
        return bool(self._behind) or self.links.is_full()

    def _waits(self, receiver: Receiver) -> bool:
        return self.aligning is None and receiver.is_full()

    def _take_frame(self, slot: int, frame: bytes, receiver: Receiver) -> None:
        kind, number, body = read_frame(frame)
        self.meter.frames_received += 1
        if kind == FrameKind.BATCH:
            self._count_received(number, len(frame))
            self._loops.received(number)
            receiver.take_batch(number, body)
        elif kind == FrameKind.TIME:
            self._loops.received_times(body, slot)
            receiver.take_times(slot, body)
        elif kind == FrameKind.LOOP:
            self._loops.ends[number].take(slot, body)
        elif kind == FrameKind.FULL:
            self._behind = self._behind | {slot} if body else self._behind - {slot}
        elif kind == FrameKind.END:
            self._open_senders[number].discard(slot)
            self._alignment.sender_ended(number, slot)
            self._pass_barriers()
        elif self._alignment.is_new(body):
            self.begin_checkpoint(body)
            self._alignment.barrier(body, number, slot)
            self._pass_barriers()

    def _count_received(self, number: int, size: int) -> None:
        self.count(self.graph.exchanges[number].edge.target, "bytes_in", size)
        if self._alignment.checkpoint_id is not None:
            self._in_flight_bytes += size

    # ---- checkpoints

    @property
    def aligning(self) -> int | None:
        """The number of the checkpoint before which all is taken in; None: none is under way."""
        return self._alignment.checkpoint_id

    def alignment_figures(self) -> tuple[float, int]:
        """Return for how many seconds the checkpoint has been under way, and what was in flight.

        That is the bytes of the records that have come since it began: they were on their way here.
        """
        return self._monotonic() - self._aligning_since, self._in_flight_bytes

    @property
    def is_aligned(self) -> bool:
        """Whether all that comes before the checkpoint is here and has gone out."""
        return self._alignment.is_complete

    def begin_checkpoint(self, checkpoint_id: int) -> None:
        """Put nothing more out but what comes of what others have sent before the checkpoint."""
        if self._alignment.is_new(checkpoint_id) and self.aligning != checkpoint_id:
            self._let_in()  # what had to wait for one that is given up
            self._alignment.begin(checkpoint_id, self._open_senders, self._over)
            self._aligning_since, self._in_flight_bytes = self._monotonic(), 0
            self.meter.aligning.start()
            self._pass_barriers()

    def end_checkpoint(self) -> None:
        """Go on: the state has been taken."""
        self._alignment.end()
        self.meter.last_alignment = self.meter.aligning.stop()
        self._let_in()

    def abort_checkpoint(self, checkpoint_id: int) -> None:
        """Go on: the checkpoint will not be."""
        if self._alignment.is_new(checkpoint_id):
            self.meter.aligning.stop()
            self._alignment.skip(checkpoint_id)
            self._let_in()

    def _let_in(self) -> None:
        """Take what has had to wait before what has come later."""
        self._held.extend(self._inbox)
        self._inbox, self._held = self._held, deque()

    def _pass_barriers(self) -> None:
        """Send the barrier of the checkpoint into those exchanges before which it has come."""
        due = self._alignment.take_due()
        if due:
            self.flush()
        for number in due:
            frame = write_frame(FrameKind.BARRIER, number, self.aligning)
            for slot in self.graph.exchanges[number].receivers:
                if slot != self.slot:
                    self._send(slot, frame)

    # ---- ends

    def tell_rest(self, loop: int) -> None:
        """Tell the other slots of a feedback loop that nothing is in flight in this one."""
        self.flush()
        for slot, message in self._loops.ends[loop].rest():
            self._send(slot, write_frame(FrameKind.LOOP, loop, message))

    def rests_of(self, loop: int) -> int:
        """Return how often a feedback loop has come to rest, in all of its slots."""
        return self._loops.ends[loop].rests

    def has_ended(self, exchange: int) -> bool:
        """Say whether nothing more comes from other slots through an exchange."""
        return not self._open_senders[exchange]

    @property
    def inputs(self) -> set[int]:
        """The numbers of the exchanges through which records come to this slot."""
        return set(self._open_senders)

    def inputs_of(self, node: int) -> Collection[int]:
        """Return the numbers of the exchanges through which records come to an operator here."""
        mine = self._open_senders
        return [
            e.number for e in self.graph.exchanges if e.edge.target == node and e.number in mine
        ]
