"""The figures of jobs as Prometheus sees them, at a port of this machine."""

import socket
import subprocess
import sys
import threading
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from parallel.processes import wait_until
from sage import ConfigError, LocalEnvironment, MapFunction, OperatorError, tumbling_time_window
from sage.testing import ManualClock, TestSource

PAUSE = TestSource.PAUSE(1000)


@pytest.fixture
def clock():
    return ManualClock(start_ms=100_000)


def families(url):
    with urlopen(url, timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        return {f.name: f for f in text_string_to_metric_families(answer.read().decode())}


def scrape(url):
    """Return each sample by its name, and the values of its labels in the order of their names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families(url).values()
        for sample in family.samples
    }


def is_closed(url):
    try:
        urlopen(url, timeout=10).close()
    except (URLError, ConnectionError):
        return True
    return False


def test_operators_slots_and_the_job_are_shown(clock):
    env = LocalEnvironment("shop", clock=clock)
    source = TestSource([90_001, 95_001, 1, PAUSE])
    timed = env.from_source(source, name="in").assign_timestamps(lambda at: at, name="time")
    recent = timed.filter(lambda at: at > 10, name="recent")
    recent.window_all(tumbling_time_window(seconds=1)).apply(lambda *_: []).sink(id, name="out")
    with env:
        server = env.serve_metrics()
        assert not [name for name, *_ in scrape(server.url) if name.startswith("sage_job")]
        env.submit()
        clock.wait_waiting(1)
        clock.advance(seconds=4)
        seen = scrape(server.url)
    assert seen["sage_operator_records_in_total", "shop", "recent", "0"] == 3
    assert seen["sage_operator_records_out_total", "shop", "recent", "0"] == 2
    assert seen["sage_operator_dropped_records_total", "shop", "recent", "0"] == 1
    assert seen["sage_operator_watermark_timestamp_seconds", "shop", "out", "0"] == 95
    assert seen["sage_operator_watermark_lag_seconds", "shop", "out", "0"] == 9
    assert ("sage_operator_watermark_lag_seconds", "shop", "in", "0") not in seen
    assert seen["sage_slot_idle_seconds_total", "shop", "0"] == 4
    assert seen["sage_slot_busy_seconds_total", "shop", "0"] == 0
    assert seen["sage_job_status", "shop", "RUNNING"] == 1
    assert seen["sage_job_status", "shop", "FINISHED"] == 0
    assert seen["sage_job_records_in_total", "shop"] == 3
    assert seen["sage_job_running_seconds", "shop"] == 4
    assert seen["sage_job_restarts_total", "shop"] == 0
    assert is_closed(server.url)


def test_checkpoints_are_shown(clock, tmp_path):
    env = LocalEnvironment("shop", clock=clock)
    env.enable_checkpointing(60, tmp_path)
    numbers = env.from_source(TestSource([1, 2, PAUSE]))
    numbers.key_by(lambda n: n).count(name="count").sink(id, name="out")
    with env:
        server = env.serve_metrics()
        job = env.submit_async()
        clock.wait_waiting(1)
        before = scrape(server.url)
        job.checkpoint(10)
        seen = scrape(server.url)
    assert before["sage_checkpoint_completed_total", "shop"] == 0
    assert ("sage_checkpoint_last_size_bytes", "shop") not in before
    assert seen["sage_checkpoint_completed_total", "shop"] == 1
    assert seen["sage_checkpoint_failed_total", "shop"] == 0
    assert seen["sage_checkpoint_last_size_bytes", "shop"] > 0
    assert seen["sage_checkpoint_last_written_bytes", "shop"] > 0
    assert seen["sage_checkpoint_last_completed_timestamp_seconds", "shop"] == 100
    assert seen["sage_checkpoint_last_alignment_seconds", "shop"] == 0
    assert seen["sage_operator_state_bytes", "shop", "count", "0"] > 0
    assert seen["sage_operator_state_bytes", "shop", "out", "0"] == 0


def test_names_and_help_are_as_prometheus_wants_them(clock):
    env = LocalEnvironment("shop", clock=clock)
    env.register_service("words", dict)
    env.from_source(TestSource([1, PAUSE])).sink(id)
    with env:
        server = env.serve_metrics()
        env.submit()
        found = families(server.url)
    assert len(found) > 20
    for family in found.values():
        assert family.name.startswith("sage_")
        assert family.documentation.endswith(".")
        assert family.type != "counter" or all(s.name.endswith("_total") for s in family.samples)


class Asks(MapFunction):
    def execute(self, data):
        return self.call_service["words"].get(data)


def test_services_are_shown_beside_the_job(clock):
    env = LocalEnvironment("shop", clock=clock)
    env.register_service("words", dict, a=1)
    env.from_source(TestSource(["a", "b", PAUSE])).map(Asks).sink(id)
    with env:
        server = env.serve_metrics()
        env.submit()
        clock.wait_waiting(1)
        seen = scrape(server.url)
    assert seen["sage_service_calls_total", "shop", "get", "words"] == 2
    assert seen["sage_service_up", "shop", "words"] == 1


def test_the_port_of_the_configuration_is_open_as_long_as_a_job_runs(clock):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/metrics"
    env = LocalEnvironment("shop", {"metrics_port": port}, clock=clock)
    env.from_source(TestSource([1, PAUSE])).sink(id, name="out")
    for _ in range(2):
        assert is_closed(url)
        env.submit()
        assert wait_until(lambda: scrape(url)["sage_job_records_in_total", "shop"] == 1)
        env.cancel()
        assert wait_until(lambda: is_closed(url))


def test_a_failed_job_closes_the_port_before_execute_raises():
    env = LocalEnvironment("shop")
    env.logger.disabled = True
    env.from_batch([1]).map(lambda n: n / 0).sink(id)
    server = env.serve_metrics()
    with pytest.raises(OperatorError):
        env.execute(progress=False)
    assert is_closed(server.url)
    assert not server.is_open


def test_a_job_that_cannot_start_leaves_no_port_open():
    env = LocalEnvironment("shop", {"metrics_port": 0})
    env.from_batch([1]).sink(id, parallelism=100_000)
    with pytest.raises(Exception, match="parallelism"):
        env.execute(progress=False)
    assert not [t for t in threading.enumerate() if t.name == "sage-metrics-server"]


def test_environments_share_a_port(clock):
    with LocalEnvironment("one", clock=clock) as one, LocalEnvironment("two", clock=clock) as two:
        first = one.serve_metrics()
        second = two.serve_metrics(first.port)
        assert first.url == second.url
        for env in (one, two):
            env.from_source(TestSource([1, PAUSE])).sink(id)
            env.submit()
        clock.wait_waiting(2)
        found = families(first.url)
        (jobs,) = [f for f in found.values() if f.name == "sage_job_records_in"]
        assert {s.labels["job_name"]: s.value for s in jobs.samples} == {"one": 1, "two": 1}
        one.cancel()
        wait_until(lambda: not first.is_open)
        assert {key[1] for key in scrape(second.url)} == {"two"}
    assert is_closed(second.url)


def test_a_port_that_is_taken_is_an_error_that_names_it():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        env = LocalEnvironment("shop")
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}"):
            env.serve_metrics(port)


def test_without_the_extra_the_error_says_what_to_install():
    program = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from sage import LocalEnvironment, ConfigError\n"
        "try: LocalEnvironment('shop').serve_metrics()\n"
        "except ConfigError as error: print(error)\n"
    )
    told = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert "pip install 'sage-dataflow[metrics]'" in told
