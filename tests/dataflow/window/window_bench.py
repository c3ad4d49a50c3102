"""A window operator with its table, timers and outputs, for tests that say each step."""

import pickle

from sage.dataflow.time import MIN_WATERMARK
from sage.dataflow.window.timers import InMemoryTimers
from sage.dataflow.window.window_operator import WindowOperator, WindowOutputs, WindowSpec


class WindowBench:
    """Runs the general operator; what it puts out is taken with `results()`."""

    def __init__(self, assigner, fold=None, **settings):
        self.spec = WindowSpec(assigner, fold, **settings)
        self.table, self.timers, self.now_ms = {}, InMemoryTimers(), 0
        self.out, self.late, self.side = [], [], []
        self._make(MIN_WATERMARK)

    def _make(self, watermark):
        outputs = WindowOutputs(
            lambda result, ts: self.out.append((result, ts)),
            lambda *late: self.late.append(late),
            lambda *side: self.side.append(side),
        )
        self.operator = WindowOperator(self.spec, self.table, self.timers, outputs)
        self.operator.watermark = watermark

    def add(self, *records):
        for key, value, ts in records:
            self.operator.add(key, value, ts, self.now_ms)
        return self

    def watermark(self, watermark):
        self.operator.watermark = watermark
        for due in self.timers.due_events(watermark):
            self.operator.on_event_timer(*due)
        return self.results()

    def clock(self, now_ms):
        self.now_ms = now_ms
        for due in self.timers.due_processing(now_ms):
            self.operator.on_processing_timer(*due)
        return self.results()

    def results(self):
        taken, self.out = self.out, []
        return taken

    def values(self):
        return [getattr(result, "value", result) for result, _ in self.results()]

    def restore(self):
        self.table, self.timers = pickle.loads(pickle.dumps((self.table, self.timers)))
        self._make(self.operator.watermark)
