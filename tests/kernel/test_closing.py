"""Whatever fails, and wherever: all that was opened is closed, exactly once."""

import threading
from collections import Counter

import pytest

from sage import (
    BaseCoMapFunction,
    FilterFunction,
    FlatMapFunction,
    JobStatus,
    KeyByFunction,
    LocalEnvironment,
    MapFunction,
    OperatorError,
    ProcessFunction,
    ReduceFunction,
    SinkFunction,
    SourceFunction,
)

PLACES = ["source", "map", "filter", "flat_map", "process", "key_by", "reduce", "comap", "sink"]
MOMENTS = ["construct", "open", "first", "third", "close"]


class Boom(Exception):
    pass


class Diary:
    """Notes what happens to the functions of a job, and fails where it is told to."""

    def __init__(self, place=None, moment=None):
        self.fault = (place, moment)
        self.events = []
        self.seen = Counter()

    def note(self, place, moment):
        self.events.append((place, moment))
        if (place, moment) == self.fault:
            raise Boom(f"{place} {moment}")

    def record(self, place):
        self.seen[place] += 1
        if self.seen[place] == 1:
            self.note(place, "first")
        if self.seen[place] == 3:
            self.note(place, "third")

    def count(self, moment):
        return Counter(place for place, what in self.events if what == moment)


class Lives:
    """A life that is written into a diary; mixed into every kind of function."""

    def __init__(self, diary, place):
        super().__init__()
        self.diary, self.place = diary, place
        diary.note(place, "construct")

    def open(self):
        self.diary.note(self.place, "open")

    def close(self):
        self.diary.note(self.place, "close")

    def execute(self, *data):
        self.diary.record(self.place)
        return self.answer(*data)


class Reads(Lives, SourceFunction):
    def get_data_iterator(self):
        for x in range(5):
            self.diary.record(self.place)
            yield x


class Maps(Lives, MapFunction):
    def answer(self, data):
        return data


class Filters(Lives, FilterFunction):
    def answer(self, data):
        return True


class FlatMaps(Lives, FlatMapFunction):
    def answer(self, data):
        return [data]


class Processes(Lives, ProcessFunction):
    def answer(self, data, ctx):
        return [data]


class Keys(Lives, KeyByFunction):
    def answer(self, data):
        return 0


class Reduces(Lives, ReduceFunction):
    def answer(self, accumulated, data):
        return data


class Writes(Lives, SinkFunction):
    def answer(self, data):
        return None


class CoMaps(Lives, BaseCoMapFunction):
    def map0(self, data):
        self.diary.record(self.place)
        return data

    def map1(self, data):
        return data


def program(diary, on_error="fail", how="from_source"):
    env = LocalEnvironment("closing", {"on_error": on_error})
    env.logger.disabled = True
    (
        getattr(env, how)(Reads, diary, "source", name="source")
        .map(Maps, diary, "map", name="map")
        .filter(Filters, diary, "filter", name="filter")
        .flat_map(FlatMaps, diary, "flat_map", name="flat_map")
        .process(Processes, diary, "process", name="process")
        .key_by(Keys, diary, "key_by", name="key_by")
        .reduce(Reduces, diary, "reduce", name="reduce")
        .connect(env.from_batch([9], name="other"))
        .comap(CoMaps, diary, "comap", name="comap")
        .sink(Writes, diary, "sink", name="sink")
    )
    return env


def check_closed(diary):
    opened, closed = diary.count("open"), diary.count("close")
    assert closed == opened
    assert all(times == 1 for times in opened.values())


@pytest.mark.parametrize("how", ["from_source", "from_batch"])
def test_every_function_lives_once_in_the_right_order(how):
    diary = Diary()
    program(diary, how=how).execute()
    check_closed(diary)
    for place in PLACES:
        life = [moment for where, moment in diary.events if where == place]
        assert life == ["construct", "open", "first", "third", "close"]


@pytest.mark.parametrize("how", ["from_source", "from_batch"])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("place", PLACES)
def test_a_fault_is_told_and_all_that_was_opened_is_closed_once(place, moment, how):
    diary = Diary(place, moment)
    env = program(diary, how=how)
    with pytest.raises(OperatorError) as caught:
        env.execute()
    assert caught.value.operator == place
    assert isinstance(caught.value.__cause__, Boom)
    assert env.job.status is JobStatus.FAILED
    check_closed(diary)


@pytest.mark.parametrize("place", [place for place in PLACES if place != "source"])
@pytest.mark.parametrize("moment", ["open", "close"])
def test_a_policy_for_records_does_not_forgive_a_fault_in_opening_or_closing(place, moment):
    diary = Diary(place, moment)
    with pytest.raises(OperatorError):
        program(diary, on_error="skip").execute()
    check_closed(diary)


def test_a_fault_in_closing_is_added_to_the_fault_that_came_before():
    first, second = Diary("map", "third"), Diary("late", "close")
    env = LocalEnvironment("closing")
    env.from_batch(range(5)).map(Maps, first, "map", name="map").map(
        Maps, second, "late", name="late"
    ).sink(lambda x: None)
    with pytest.raises(OperatorError, match="map third") as caught:
        env.execute()
    assert any("late close" in note for note in caught.value.__notes__)
    check_closed(second)


def test_all_faults_in_closing_are_told():
    diaries = [Diary(name, "close") for name in ("one", "two", "three")]
    env = LocalEnvironment("closing")
    stream = env.from_batch([1])
    for diary in diaries:
        stream = stream.map(Maps, diary, diary.fault[0], name=diary.fault[0])
    stream.sink(lambda x: None)
    with pytest.raises(OperatorError) as caught:
        env.execute()
    told = "\n".join([str(caught.value), *caught.value.__notes__])
    assert all(f"{name} close" in told for name in ("one", "two", "three"))


@pytest.mark.parametrize("ending", ["cancel", "stop", "timeout", "close"])
def test_a_job_that_is_ended_from_outside_closes_everything_once(ending):
    diary, running, enough = Diary(), threading.Event(), threading.Event()

    class Endless(Reads):
        def get_data_iterator(self):
            n = 0
            while not enough.is_set():
                yield n
                n += 1

        def close(self):
            enough.set()
            super().close()

    env = LocalEnvironment("closing")
    stream = env.from_source(Endless, diary, "source").map(Maps, diary, "map")
    stream.sink(lambda x: running.set())
    if ending == "timeout":
        with pytest.raises(TimeoutError):
            env.execute(timeout=0.05)
    else:
        env.submit()
        assert running.wait(10)
        getattr(env, ending)()
    assert env.job.status.is_terminal
    check_closed(diary)
    assert diary.count("close") == Counter(["source", "map"])


def test_a_fault_in_one_task_ends_the_others_and_closes_their_functions():
    diary, running = Diary(), threading.Event()

    def endless():
        while True:
            yield 1

    def fail_when_the_other_runs(x):
        running.wait(10)
        raise Boom("first task")

    env = LocalEnvironment("closing")
    env.from_batch([1]).map(fail_when_the_other_runs, name="broken").sink(lambda x: None)
    endless_one = env.from_batch(endless).map(Maps, diary, "map")
    endless_one.sink(lambda x: running.set())
    with pytest.raises(OperatorError) as caught:
        env.execute()
    assert caught.value.operator == "broken"
    check_closed(diary)


def test_each_run_makes_new_instances_of_a_class():
    diary = Diary()
    env = program(diary)
    env.execute()
    diary.seen.clear()
    env.execute()
    assert set(diary.count("construct").values()) == {2}
    assert diary.count("open") == diary.count("close")
