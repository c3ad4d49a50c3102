"""The reports of the flights: what is in them, and that a kill changes nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "flight_reports.py"
HEADER = "minute,origin,tailnum,dep_delay,time_hour"


def rows(count: int) -> str:
    """Return flights, one every five minutes."""
    lines = [HEADER]
    for n in range(count):
        hours, minute = divmod(n * 5, 60)
        time = f"2013-01-{1 + hours // 24:02}T{hours % 24:02}:00:00Z"
        lines.append(f"{minute},{'JFK' if n % 3 else 'LGA'},N{n % 7},{n % 11},{time}")
    return "\n".join([*lines, "soon,JFK,N1,3,2013-01-01T10:00:00Z", ""])


def command(folder: Path, output: str, *more: object) -> list[str]:
    """Return how the example is called."""
    options = ["--input", folder / "flights.csv", "--output", folder / output, *more]
    return [sys.executable, "-W", "error", str(EXAMPLE), *map(str, options)]


def reports(output: Path) -> dict[str, list[str]]:
    """Return the lines of all reports, in no order."""
    found: dict[str, list[str]] = {}
    for file in output.glob("*/part-*.jsonl"):
        found.setdefault(file.parent.name, []).extend(file.read_text().splitlines())
    return {name: sorted(lines) for name, lines in found.items()}


def test_the_reports_hold_what_the_rows_say(tmp_path: Path) -> None:
    """Hours, the busiest one, the trips of an aircraft, and what could not be read."""
    (tmp_path / "flights.csv").write_text(rows(36), encoding="utf-8")
    done = subprocess.run(
        command(tmp_path, "out"), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "JFK: 8 departures in the hour from 2013-01-01T00:00:00+00:00" in done.stdout
    found = {
        name: [json.loads(line) for line in v] for name, v in reports(tmp_path / "out").items()
    }
    first = {"airport": "LGA", "hour": "2013-01-01T00:00:00+00:00", "flights": 4, "delay": 4.5}
    assert first in found["hourly"]
    assert len(found["hourly"]) == 6
    assert len(found["aircraft"]) == 7
    assert [report["error"] for report in found["unusable"]] == [
        "invalid literal for int() with base 10: 'soon'"
    ]


def test_a_run_that_is_killed_is_gone_on_with(tmp_path: Path) -> None:
    """The reports are those of a run that nobody kills."""
    (tmp_path / "flights.csv").write_text(rows(8000), encoding="utf-8")
    subprocess.run(command(tmp_path, "whole"), capture_output=True, timeout=60, check=True)
    killed = command(tmp_path, "killed", "--checkpoint", tmp_path / "state")
    with subprocess.Popen(killed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            process.wait(0.8)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
    unfinished = list((tmp_path / "state").rglob("metadata.json"))
    if unfinished or not reports(tmp_path / "killed"):  # else it was done before the kill
        subprocess.run(killed, capture_output=True, timeout=60, check=True)
    assert reports(tmp_path / "killed") == reports(tmp_path / "whole")
