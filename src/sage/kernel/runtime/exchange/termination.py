"""When nothing is in flight in a feedback loop any more, in any slot. Pure: facts in, messages out.

A loop has come to rest if no slot works on its records and none is on its way between two slots. No
slot sees that alone: a record may be on its way to one that has just said that it is at rest. So the
first slot asks all of them, twice. Each answers, when it is at rest, how many messages it has sent and
received since it was started. If what all had received by their first answers is what all have sent by
their second ones, then between the two rounds nothing was in flight and nobody worked: what had been
sent by then had been received, and nothing had been received since that could wake anybody.

After Mattern, "Algorithms for distributed termination detection" (1987): the four counter method.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Ask(NamedTuple):
    """From the first slot to all others: answer when you are at rest."""


class Counts(NamedTuple):
    """From a slot to the first one: it is at rest, and has sent and received so many messages."""

    sent: int
    received: int


class AtRest(NamedTuple):
    """From the first slot to all others: the loop has come to rest."""


LoopMessage = Ask | Counts | AtRest


class Termination:
    """What one slot knows of a loop, which can come to rest again and again.

    Messages from one slot to another arrive in the order in which they were sent. A slot at rest is
    woken only by what it receives, or by what all slots do when the loop has come to rest.

    Args:
        slot: Which slot this is.
        slots: All slots of the loop, the first one first.

    Attributes:
        sent: How many messages of the loop this slot has sent to others.
        received: How many it has received.
        rests: How often the loop has come to rest.

    Examples:
        >>> first, second = Termination(0, (0, 1)), Termination(1, (0, 1))
        >>> first.rest()  # it asks, for the first time
        [(1, Ask())]
        >>> second.take(0, Ask()); second.rest()
        [(0, Counts(sent=0, received=0))]
        >>> first.take(1, Counts(0, 0)); first.rest()  # and again
        [(1, Ask())]
        >>> first.take(1, Counts(0, 0)); first.rest(), first.rests
        ([(1, AtRest())], 1)
    """

    def __init__(self, slot: int, slots: Sequence[int]) -> None:
        self.sent = self.received = self.rests = 0
        self._first = slots[0]
        self._others = [other for other in slots if other != slot]
        self._leads = slot == self._first
        self._asked = False
        self._answers: dict[int, Counts] = {}
        self._received_before: int | None = None

    def take(self, slot: int, message: LoopMessage) -> None:
        """Take note of a message from another slot."""
        match message:
            case Ask():
                self._asked = True
            case Counts():
                self._answers[slot] = message
            case AtRest():
                self.rests += 1

    def rest(self) -> list[tuple[int, LoopMessage]]:
        """This slot is at rest: return what is to be sent, and to whom.

        Call it whenever the slot is at rest, and has done what there was to be done when the loop came
        to rest the last time.
        """
        if not self._others:
            self.rests += 1
            return []
        if self._leads:
            return self._lead()
        if not self._asked:
            return []
        self._asked = False
        return [(self._first, Counts(self.sent, self.received))]

    def _lead(self) -> list[tuple[int, LoopMessage]]:
        if not self._asked:
            return self._ask()
        if len(self._answers) < len(self._others):
            return []
        sent = self.sent + sum(answer.sent for answer in self._answers.values())
        received = self.received + sum(answer.received for answer in self._answers.values())
        before, self._received_before = self._received_before, received
        if before != sent:
            return self._ask()
        self._asked = False  # what all had received by now is a first answer for the next rest
        self.rests += 1
        return [(slot, AtRest()) for slot in self._others]

    def _ask(self) -> list[tuple[int, LoopMessage]]:
        self._asked = True
        self._answers.clear()
        return [(slot, Ask()) for slot in self._others]
