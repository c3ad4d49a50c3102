"""What functions put out at the end comes exactly once, whatever fails."""

import os
import tempfile

from hypothesis import example, given, settings
from hypothesis import strategies as st

from recovery.pipelines import by_three, timed
from recovery.running import with_faults, without_faults
from recovery.scripted_source import Checkpoint, Fail
from sage import OperatorListState, ProcessFunction, ValueState, tumbling_time_window

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # no disk to wait for


class Sums(ProcessFunction):
    """Sets timers; tells what it knows at the end."""

    sum = ValueState(int, default=0)
    count = OperatorListState(int)

    def execute(self, data, ctx):
        self.sum.value += data
        self.count[:] = [sum(self.count) + 1]
        ctx.register_event_timer(ctx.timestamp + 2_000)

    def on_timer(self, timestamp, ctx):
        yield ("timer", ctx.key, timestamp)

    def on_end(self, ctx):
        found = []
        ctx.apply_to_keyed_state(self.sum, lambda key, kept: found.append((key, kept.value)))
        yield ("end", tuple(sorted(found)), sum(self.count))


def at_the_end(env, numbers):
    sums = timed(numbers).key_by(by_three).process(Sums)
    windows = sums.window_all(tumbling_time_window(5)).count()
    return [sums, windows, windows.late_records()]


SCRIPTS = st.lists(
    st.one_of(st.integers(0, 30), st.just(Checkpoint()), st.builds(Fail, times=st.integers(1, 2))),
    max_size=30,
)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(SCRIPTS)
@example([1, 5, 9, Checkpoint(), 10, Fail()])
@example([30, Checkpoint(), 1, Checkpoint(), Fail(), Checkpoint()])
def test_the_same_as_without_faults(script):
    with tempfile.TemporaryDirectory(dir=MEMORY) as root:
        assert with_faults(at_the_end, script, root) == without_faults(at_the_end, script)
