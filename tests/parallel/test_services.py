"""Services, logs and what is printed in a job over several processes."""

import logging
import os
import threading

import pytest

from sage import LocalEnvironment, MapFunction, OperatorError, ServiceCallError

RECORDS = 200


def environment():
    return LocalEnvironment("with-services", {"parallelism": 2})


class Counting:
    """Counts calls, and says who answers."""

    def __init__(self):
        self.calls = 0
        self.lock = threading.Lock()

    def add(self, number):
        with self.lock:
            self.calls += 1
            return os.getpid(), self.calls, number

    def fail(self, number):
        raise LookupError(f"no {number}")


class Calls(MapFunction):
    def __init__(self, name, method="add"):
        super().__init__()
        self.service, self.method_name = name, method

    def execute(self, data):
        return os.getpid(), getattr(self.call_service[self.service], self.method_name)(data)


@pytest.mark.parametrize("isolation", ["local", "process"])
def test_a_service_runs_once_for_all_workers(isolation):
    env = environment()
    env.register_service("counting", Counting).options(isolation=isolation)
    found = env.from_batch(range(RECORDS)).rebalance().map(Calls("counting")).collect()
    env.execute(progress=False)
    callers, answers = {pid for pid, _ in found}, [answer for _, answer in found]
    assert len(callers) == 2
    (host,) = {pid for pid, _, _ in answers}
    assert host not in {*callers, os.getpid()}
    assert sorted(calls for _, calls, _ in answers) == list(range(1, RECORDS + 1))
    assert sorted(number for _, _, number in answers) == list(range(RECORDS))


def test_an_error_of_a_service_reaches_the_function_that_called_it():
    env = environment()
    env.register_service("counting", Counting)
    env.from_batch([7]).map(Calls("counting", "fail"), name="calls").collect()
    with pytest.raises(OperatorError) as told:
        env.execute(progress=False)
    assert (told.value.operator, told.value.record) == ("calls", 7)
    assert isinstance(told.value.__cause__, ServiceCallError)
    assert "LookupError" in str(told.value)
    assert "no 7" in str(told.value)


class Calling:
    """Calls another service, which calls this one."""

    ctx = None

    def __init__(self, other):
        self.other = other

    def add(self, number):
        return self.ctx.call_service[self.other].add(number)


def test_a_cycle_of_calls_is_an_error():
    env = environment()
    env.register_service("first", Calling, "second")
    env.register_service("second", Calling, "first")
    env.from_batch([1]).map(Calls("first")).collect()
    with pytest.raises(OperatorError, match=r"first.*second.*first"):
        env.execute(progress=False)


# ---- logs and lines


class Talks(MapFunction):
    def execute(self, data):
        self.logger.info("logged %d", data)
        self.logger.warning("warned %d", data)
        print("printed", data, "x" * 100, sep="|")
        return data

    def close(self):
        print("last", end="")


def test_logs_and_lines_reach_the_program(caplog, capsys):
    env = environment()
    env.from_batch(range(RECORDS)).rebalance().map(Talks, name="talks").sink(abs)
    with caplog.at_level(logging.INFO, logger="sage"):
        env.execute(progress=False)
    told = [(r.levelname, r.getMessage()) for r in caplog.records if "ed " in r.getMessage()]
    for level, word in (("INFO", "logged"), ("WARNING", "warned")):
        texts = [text for name, text in told if name == level and text.startswith(word)]
        assert sorted(texts) == sorted(f"{word} {n}" for n in range(RECORDS))
    assert all("talks" in r.name for r in caplog.records if r.getMessage().startswith("logged"))
    lines = capsys.readouterr().out.splitlines()
    whole = [f"printed|{n}|{'x' * 100}" for n in range(RECORDS)]
    assert sorted(lines) == sorted(["last", "last", *whole])


def test_print_writes_whole_lines(capsys):
    env = environment()
    env.from_batch(range(RECORDS)).rebalance().map(lambda n: str(n) * 50).print()
    env.execute(progress=False)
    lines = capsys.readouterr().out.splitlines()
    assert sorted(lines) == sorted(str(n) * 50 for n in range(RECORDS))


def test_lines_below_the_level_of_the_program_are_not_sent(caplog):
    env = environment()
    env.from_batch(range(3)).rebalance().map(Talks).sink(abs)
    with caplog.at_level(logging.WARNING, logger="sage"):
        env.execute(progress=False)
    assert not [r for r in caplog.records if r.getMessage().startswith("logged")]
    assert len([r for r in caplog.records if r.getMessage().startswith("warned")]) == 3
