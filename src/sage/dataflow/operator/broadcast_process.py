"""The operator of a `BroadcastProcessFunction`, and its live part."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sage.dataflow.operator.base import LiveContext, LivePart, OperatorScope
from sage.dataflow.operator.loop_writer import Flow
from sage.dataflow.operator.process_live import ProcessLive
from sage.dataflow.operator.record_wise import Process
from sage.dataflow.state.live import NO_KEY
from sage.dataflow.state.operator_state import WriteAccess, broadcast_states

RECORDS, RULES = 0, 1
"""The inputs: the stream itself, and the one that is broadcast."""


@dataclass(frozen=True, eq=False)
class BroadcastProcess(Process):
    """A process function with a second input, whose records all subtasks get."""

    def create_live(self, context: LiveContext) -> LivePart:
        """Make the contexts of the function, its timers, and what guards its broadcast state."""
        return BroadcastLive(context)

    def write(self, scope: OperatorScope, flow: Flow, index: int) -> None:
        """Say whose turn it is, call the method of the input, and emit what it gives."""
        live, writer = scope.live(), scope.writer
        if index == RECORDS:
            writer.line(f"{writer.bind('access', live.access)}.allowed = False")
            super().write(scope, flow, index)
            return
        writer.line(f"{writer.bind('begin', live.begin_rule)}({flow.timestamp})")
        rule, items = replace(flow, key=None), writer.fresh("items")
        context = writer.bind("rule_ctx", live.keyless)
        scope.attempt([f"{items} = {scope.entry(index)}({rule.value}, {context})"], rule)
        with scope.expand(items, rule) as item:
            scope.emit(Flow(item))


class BroadcastLive(ProcessLive):
    """What of such a function lives as long as the task.

    Args:
        context: What it is made with.

    Attributes:
        access: Whether broadcast state may be changed now.
    """

    def __init__(self, context: LiveContext) -> None:
        super().__init__(context)
        self.access = WriteAccess("process_broadcast_element()")
        for state in broadcast_states(context.functions[0]):
            state.access = self.access

    def begin_rule(self, timestamp: int | None) -> None:
        """Let what follows be about a record that is broadcast: it has no key."""
        self.access.allowed = True
        self._set_key(NO_KEY)
        self.keyless.timestamp = timestamp

    def _fire(self, timestamp: int, key: Any, event_time: int | None) -> None:
        self.access.allowed = False
        super()._fire(timestamp, key, event_time)

    def end(self) -> None:
        """Put out what goes out at the end, where rules stay as they are."""
        self.access.allowed = False
        super().end()
