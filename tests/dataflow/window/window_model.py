"""What windows on event time should put out, by brute force, and drivers of the real machines.

The model keeps every record it accepted and scans them all at each step. It follows the definitions
(when a window fires, when a record is late, which intervals make a session), not the algorithms.
"""

import pickle

from sage.dataflow.function.keyed import AggregateFunction
from sage.dataflow.time import MAX_WATERMARK, MIN_WATERMARK
from sage.dataflow.window.pane_windows import PaneWindows
from sage.dataflow.window.session_windows import KeyedSessions
from sage.dataflow.window.timers import InMemoryTimers
from sage.dataflow.window.window_function import aggregating
from sage.dataflow.window.window_operator import WindowOperator, WindowOutputs, WindowSpec
from sage.dataflow.window.window_result import WindowResult


class Bag(AggregateFunction):
    """All records, in any order; it spoils what it may: `merge` empties its second argument."""

    def create_accumulator(self):
        return []

    def add(self, accumulator, data):
        accumulator.append(data)
        return accumulator

    def get_result(self, accumulator):
        return tuple(sorted(accumulator))

    def merge(self, first, second):
        first.extend(second)
        second.clear()
        return first


class WindowModel:
    """Takes the same steps as the machines and says what each should give: results and late records."""

    def __init__(self, lateness):
        self.lateness, self.watermark = lateness, MIN_WATERMARK

    def kept(self, end):
        return min(end - 1 + self.lateness, MAX_WATERMARK) > self.watermark


class AlignedModel(WindowModel):
    def __init__(self, size, slide, offset, lateness):
        super().__init__(lateness)
        self.size, self.slide, self.offset = size, slide, offset
        self.accepted = []  # (key, start of window, value)

    def starts(self, ts):
        near = range(ts - self.size + 1, ts + 1)
        return [start for start in near if (start - self.offset) % self.slide == 0]

    def result(self, key, start):
        values = [v for k, s, v in self.accepted if (k, s) == (key, start)]
        end = start + self.size
        return WindowResult(key, start, end, tuple(sorted(values))), end - 1

    def record(self, key, value, ts):
        starts = [start for start in self.starts(ts) if self.kept(start + self.size)]
        results = []
        for start in starts:
            self.accepted.append((key, start, value))
            if start + self.size - 1 <= self.watermark:
                results.append(self.result(key, start))
        late = [(value, key, ts)] if not starts and ts + self.lateness <= self.watermark else []
        return results, late

    def advance(self, watermark):
        before, self.watermark = self.watermark, max(self.watermark, watermark)
        windows = {(key, start) for key, start, _ in self.accepted}
        ended = [w for w in windows if before < w[1] + self.size - 1 <= self.watermark]
        return [self.result(*window) for window in ended], []


class SessionModel(WindowModel):
    def __init__(self, gap_of, lateness):
        super().__init__(lateness)
        self.gap_of, self.accepted = gap_of, []  # (key, start, end, value)

    def sessions(self, key):
        """Sort and scan: intervals that touch are one."""
        found = []
        for _, start, end, value in sorted(r for r in self.accepted if r[0] == key):
            if found and start <= found[-1][1]:
                found[-1][1] = max(found[-1][1], end)
                found[-1][2].append(value)
            else:
                found.append([start, end, [value]])
        return found

    def record(self, key, value, ts):
        new = (key, ts, ts + self.gap_of(value), value)
        self.accepted.append(new)
        (start, end, values) = next(s for s in self.sessions(key) if value in s[2])
        if not self.kept(end):
            self.accepted.remove(new)
            return [], [(value, key, ts)]
        if end - 1 > self.watermark:
            return [], []
        return [(WindowResult(key, start, end, tuple(sorted(values))), end - 1)], []

    def advance(self, watermark):
        before, self.watermark = self.watermark, max(self.watermark, watermark)
        results = []
        for key in {record[0] for record in self.accepted}:
            for start, end, values in self.sessions(key):
                if before < end - 1 <= self.watermark:
                    result = WindowResult(key, start, end, tuple(sorted(values)))
                    results.append((result, end - 1))
                if not self.kept(end):
                    self.accepted = [r for r in self.accepted if r[3] not in values]
        return results, []


class Machine:
    """A real machine behind the same steps as the model, with snapshots and restores in between."""

    def __init__(self, spec):
        self.spec, self.results, self.late = spec, [], []
        self.start()

    def emit(self, result, ts):
        self.results.append((result, ts))

    def take_late(self, value, key, ts):
        self.late.append((value, key, ts))

    def given(self):
        given = self.results, self.late
        self.results, self.late = [], []
        return given

    def record(self, key, value, ts):
        self.add(key, value, ts)
        return self.given()

    def advance(self, watermark):
        self.move(watermark)
        ends = [ts for _, ts in self.results]
        assert ends == sorted(ends)
        return self.given()


class GeneralMachine(Machine):
    def start(self):
        self.table, self.timers = {}, InMemoryTimers()
        self.make()

    def make(self):
        outputs = WindowOutputs(self.emit, self.take_late)
        self.operator = WindowOperator(self.spec, self.table, self.timers, outputs)

    def add(self, key, value, ts):
        self.operator.add(key, value, ts, now_ms=0)

    def move(self, watermark):
        self.operator.watermark = max(self.operator.watermark, watermark)
        for due in self.timers.due_events(self.operator.watermark):
            self.operator.on_event_timer(*due)
        if self.operator.watermark == MAX_WATERMARK:
            assert not self.table
            assert not len(self.timers)

    def snapshot(self, full):
        pass

    def restore(self, split):
        watermark = self.operator.watermark
        self.table, self.timers = pickle.loads(pickle.dumps((self.table, self.timers)))
        self.make()
        self.operator.watermark = watermark


class FastMachine(Machine):
    kind = None

    def start(self):
        self.chain, self.fast = [], self.make()

    def make(self):
        fold, lateness = aggregating(Bag()), self.spec.allowed_lateness_ms
        return self.kind(self.spec.assigner, fold, lateness, self.emit, self.take_late)

    def add(self, key, value, ts):
        self.fast.add(key, value, ts)

    def move(self, watermark):
        if watermark < self.fast.next_fire:
            self.fast.watermark = max(self.fast.watermark, watermark)
        else:
            self.results += self.fast.advance(watermark)
        if self.fast.watermark == MAX_WATERMARK:
            assert self.empty()

    def snapshot(self, full):
        taken = self.fast.take_changes()
        if full or not self.chain:
            self.chain = [pickle.dumps(self.fast.full_state())]
        else:
            self.chain.append(pickle.dumps(taken))

    def restore(self, split):
        self.snapshot(full=False)
        self.fast = self.make()
        if split:  # as when two subtasks become one
            self.fast.load(*self.loaded(), owns=lambda key: key == "a")
            self.fast.load(*self.loaded(), owns=lambda key: key != "a")
            self.chain = []
        else:
            self.fast.load(*self.loaded())

    def loaded(self):
        return [pickle.loads(taken) for taken in self.chain]


class PaneMachine(FastMachine):
    kind = PaneWindows

    def empty(self):
        return not (self.fast.panes or self.fast._sealed or self.fast._stacks or self.fast._bases)


class InlinedPaneMachine(PaneMachine):
    """The loop of the module's docstring; each run of records between other steps is a batch."""

    def make(self):
        self.begin = self.after = 0
        return super().make()

    def add(self, key, value, ts):
        windows = self.fast
        if not self.begin <= ts < self.after:
            self.begin = ts - (ts - windows.offset_ms) % windows.pane_ms
            self.after = self.begin + windows.pane_ms
            self.pane = windows.pane(self.begin)
            if self.pane is None:
                self.after = self.begin
                windows.behind(key, value, ts)
                return
        if key in self.pane:
            self.pane[key] = [*self.pane[key], value]
        else:
            windows.pane_miss(self.begin, key, value)

    def move(self, watermark):
        self.after = self.begin
        super().move(watermark)

    def snapshot(self, full):
        self.after = self.begin
        super().snapshot(full)


class SessionMachine(FastMachine):
    kind = KeyedSessions

    def empty(self):
        return not (self.fast.latest or self.fast._others)


def spec_of(assigner, lateness):
    return WindowSpec(assigner, aggregating(Bag()), allowed_lateness_ms=lateness)


def agree(model, machines, steps):
    """Take the steps on all and demand the same results and late records after each.

    Args:
        model: The model.
        machines: The real ones.
        steps: Pairs of a number that says what to do, a key, and a number that says how.
    """
    for number, (kind, key, at) in enumerate([*steps, (9, "a", MAX_WATERMARK)]):
        if kind <= 5:
            expected = model.record(key, number, at)
            found = [machine.record(key, number, at) for machine in machines]
        elif kind <= 7 or kind == 9:
            expected = model.advance(at)
            found = [machine.advance(at) for machine in machines]
        else:
            for machine in machines:
                _snapshot_or_restore(machine, at % 4)
            continue
        for machine, (results, late) in zip(machines, found, strict=True):
            assert sorted(results) == sorted(expected[0]), (number, type(machine).__name__)
            assert late == expected[1], (number, type(machine).__name__)


def _snapshot_or_restore(machine, choice):
    if choice < 2:
        machine.snapshot(full=choice == 1)
    else:
        machine.restore(split=choice == 3)
