"""What can only be seen from outside of the process: imports, exit, and Ctrl-C."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from patience import PATIENCE


def start(program):
    return subprocess.Popen(
        [sys.executable, "-u", "-W", "error", "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def run(program):
    with start(program) as process:
        try:
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    return process.returncode, out, err


def interrupt_when_running(program):
    """Send Ctrl-C once the program has printed its first line."""
    with start(program) as process:
        try:
            assert process.stdout.readline() == "running\n"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    return process.returncode, out, err


HEAVY = ["rich", "numpy", "pandas", "pyarrow", "datasketches", "kafka", "ray"]


def test_import_loads_nothing_heavy():
    code, out, err = run(f"""
        import sys
        import sage
        print(sorted(set({HEAVY!r}) & set(sys.modules)))
    """)
    assert (code, out, err) == (0, "[]\n", "")


def test_a_job_without_progress_loads_nothing_heavy():
    code, out, err = run(f"""
        import sys
        from sage import LocalEnvironment, mean
        env = LocalEnvironment("light")
        env.from_batch([1, 2]).key_by(lambda x: 0).aggregate(mean(), emit="final").print()
        env.execute()
        print(sorted(set({HEAVY!r}) & set(sys.modules)))
    """)
    assert (code, out, err) == (0, "(0, 1.5)\n[]\n", "")


def test_import_starts_no_thread_and_sets_no_handler():
    code, out, _ = run("""
        import signal, threading, logging
        before = signal.getsignal(signal.SIGINT)
        import sage
        same = signal.getsignal(signal.SIGINT) is before
        print(threading.active_count(), same, logging.getLogger().handlers)
    """)
    assert (code, out) == (0, "1 True []\n")


def test_a_submitted_job_keeps_the_process_alive_until_it_is_done():
    code, out, err = run("""
        import threading
        from sage import LocalEnvironment
        ended = threading.Event()
        def records():
            assert ended.wait(10)
            yield from range(3)
        env = LocalEnvironment("alive")
        env.from_source(records).print()
        env.submit()
        print("submitted")
        ended.set()
    """)
    assert (code, err) == (0, "")
    assert out.splitlines() == ["submitted", "0", "1", "2"]


def test_an_abandoned_iterator_of_results_does_not_keep_the_process():
    code, out, _ = run("""
        import itertools
        from sage import LocalEnvironment
        env = LocalEnvironment("abandoned", {"batch_size": 1})
        results = env.from_batch(itertools.count).execute_and_collect()
        print(next(results))
    """)
    assert (code, out) == (0, "0\n")


def test_a_job_whose_results_nobody_takes_can_be_cancelled():
    code, out, _ = run("""
        import itertools, threading
        from sage import LocalEnvironment
        many = threading.Event()
        def records():
            for i in itertools.count():
                if i == 17:
                    many.set()
                yield i
        env = LocalEnvironment("abandoned", {"batch_size": 1})
        results = env.from_batch(records).execute_and_collect()
        next(results)
        many.wait(10)
        print(env.cancel(5)["status"], flush=True)
    """)
    assert (code, out) == (0, "success\n")


def test_an_iterator_of_results_that_was_never_started_does_not_hold_up_another_run():
    code, out, _ = run("""
        from sage import LocalEnvironment
        env = LocalEnvironment("unused", {"batch_size": 1})
        stream = env.from_batch(range(100))
        unused = stream.execute_and_collect()
        print(env.execute().status)
    """)
    assert (code, out) == (0, "FINISHED\n")


ENDLESS = """
    import itertools, sys, threading
    from sage import LocalEnvironment, SourceFunction, MapFunction
    class Endless(SourceFunction):
        def get_data_iterator(self):
            self.enough = threading.Event()
            first = True
            while not self.enough.wait(0.01):
                yield 1
        def close(self):
            print("source closed")
    class Shows(MapFunction):
        first = True
        def execute(self, data):
            if self.first:
                self.first = False
                print("running")
            return data
        def close(self):
            print("map closed")
    env = LocalEnvironment("endless")
    env.from_source(Endless).map(Shows).sink(lambda x: None)
"""


def test_ctrl_c_in_execute_cancels_closes_and_says_so():
    code, out, err = interrupt_when_running(ENDLESS + "    env.execute()\n")
    assert "cancelling job 'endless'" in err
    assert "KeyboardInterrupt" in err
    assert sorted(out.splitlines()) == ["map closed", "source closed"]
    assert code in (1, 130, -signal.SIGINT)


def test_ctrl_c_with_progress_cancels_and_closes_too():
    code, out, err = interrupt_when_running(ENDLESS + "    env.execute(progress=True)\n")
    assert "cancelling job 'endless'" in err
    assert sorted(out.splitlines()) == ["map closed", "source closed"]
    assert code != 0


def test_ctrl_c_after_submit_when_the_main_program_has_ended():
    _, out, err = interrupt_when_running(ENDLESS + "    env.submit()\n")
    assert "cancelling job 'endless'" in err
    assert sorted(out.splitlines()) == ["map closed", "source closed"]
    assert "Traceback" not in err


def test_ctrl_c_after_submit_while_the_main_program_waits():
    code, out, err = interrupt_when_running(
        ENDLESS + "    env.submit()\n    threading.Event().wait(15)\n    print('not reached')\n"
    )
    assert "cancelling job 'endless'" in err
    assert sorted(out.splitlines()) == ["map closed", "source closed"]
    assert code != 0


def test_ctrl_c_leaves_a_handler_of_the_program_alone():
    code, out, _ = interrupt_when_running(
        """
    import signal
    signal.signal(signal.SIGINT, lambda *_: (print("mine"), env.cancel()))
    """
        + ENDLESS
        + "    env.submit()\n    env.wait()\n"
    )
    assert code == 0
    assert sorted(out.splitlines()) == ["map closed", "mine", "source closed"]


@pytest.mark.parametrize(
    "body",
    [
        "env.execute()",
        "await env.submit_async()",
        "env.submit(); await asyncio.sleep(15)",
    ],
)
def test_ctrl_c_in_a_coroutine_cancels_and_closes_too(body):
    code, out, err = interrupt_when_running(f"""{ENDLESS}
    import asyncio
    async def main():
        {body}
    asyncio.run(main())
    """)
    assert "cancelling job 'endless'" in err
    assert err.strip().endswith("KeyboardInterrupt")
    assert sorted(out.splitlines()) == ["map closed", "source closed"]
    assert code != 0


def test_ctrl_c_after_a_coroutine_that_submitted_a_job_has_ended():
    _, out, err = interrupt_when_running(f"""{ENDLESS}
    import asyncio
    async def main():
        env.submit()
    asyncio.run(main())
    """)
    assert "cancelling job 'endless'" in err
    assert sorted(out.splitlines()) == ["map closed", "source closed"]
    assert "Traceback" not in err


def test_a_handler_of_the_program_may_wait_for_the_end_however_early_it_is_called():
    code, out, err = run(f"""
    import os, signal
    signal.signal(signal.SIGINT, lambda *_: (print("mine"), env.cancel()))
    {ENDLESS}
    from sage.kernel.runtime.task.task import Task
    open_ = Task.run
    def interrupt_and_open(task):
        os.kill(os.getpid(), signal.SIGINT)
        open_(task)
    Task.run = interrupt_and_open
    env.submit()
    env.wait()
    """)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "mine"


@pytest.mark.parametrize("submit", ["env.submit()", "asyncio.run(main())"])
def test_ctrl_c_at_the_very_start_cancels_too(submit):
    code, out, err = run(f"""{ENDLESS}
    import asyncio, os, signal
    from sage.kernel.jobmanager.job import Job
    start = Job.start
    def start_and_interrupt(job, **options):
        start(job, **options)
        os.kill(os.getpid(), signal.SIGINT)
    Job.start = start_and_interrupt
    async def main():
        env.submit()
    {submit}
    """)
    assert "cancelling job 'endless'" in err
    assert "KeyboardInterrupt" in err
    assert code != 0
    assert set(out.splitlines()) <= {"running", "map closed", "source closed"}


def test_ctrl_c_in_a_coroutine_whose_job_is_done_is_asyncios_own():
    _, out, err = interrupt_when_running("""
    import asyncio
    from sage import LocalEnvironment
    async def main():
        env = LocalEnvironment("done")
        env.from_batch([1]).sink(lambda x: None)
        await env.submit_async()
        env.execute()
        try:
            print("running")
            await asyncio.sleep(15)
        except asyncio.CancelledError:
            print("cancelled")
            raise
    asyncio.run(main())
    """)
    assert out == "cancelled\n"
    assert err.strip().endswith("KeyboardInterrupt")


@pytest.mark.parametrize("end", ["env.execute()", "env.submit(autostop=True)"])
def test_a_failing_job_fails_the_program(end):
    code, _, err = run(f"""
        from sage import LocalEnvironment
        env = LocalEnvironment("failing")
        env.from_batch([0]).map(lambda x: 1 / x, name="inverse").sink(print)
        {end}
    """)
    assert code == 1
    assert "inverse failed on record 0" in err


def test_a_failing_job_in_the_background_is_logged():
    _, _, err = run("""
        from sage import LocalEnvironment
        env = LocalEnvironment("failing")
        env.from_batch([0]).map(lambda x: 1 / x, name="inverse").sink(print)
        env.submit()
    """)
    assert "inverse failed on record 0" in err
