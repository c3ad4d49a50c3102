"""The live view, as somebody sees it who runs a program in a terminal."""

import re
import subprocess
import sys
from textwrap import dedent

import pytest

from cli.terminal import sage_run

PROGRAM = """
    import logging, sys, time
    from pathlib import Path
    from sage import LocalEnvironment, MapFunction

    class Ask(MapFunction):
        def execute(self, number):
            if number % 100 == 0:
                print(f"printed {number}", "x" * 130)
            if number % 150 == 0:
                logging.getLogger("mine").warning("logged %s", number)
            if number == GATE:
                while not (Path(sys.argv[1]).exists() or self.ctx.is_cancelled):
                    time.sleep(0.01)
            if number == BAD:
                raise ValueError(number)
            return self.call_service["words"].get(number, number)

    logging.basicConfig(format="%(message)s")
    env = LocalEnvironment("shop")
    env.register_service("words", dict)
    if CHECKPOINTS:
        env.enable_checkpointing(0.05, sys.argv[1] + ".checkpoints")
    env.from_batch(range(1000)).map(Ask, name="ask", on_error=POLICY).sink(id, name="out")
    env.execute()
    print("the program goes on")
"""


@pytest.fixture
def program(tmp_path):
    """Return what writes a program that waits at a record, and the file that it waits for."""

    def write(gate=500, bad=-1, policy="skip", checkpoints=True):
        path = tmp_path / "app.py"
        values = {"GATE": gate, "BAD": bad, "POLICY": repr(policy), "CHECKPOINTS": checkpoints}
        text = re.sub("|".join(values), lambda match: str(values[match[0]]), dedent(PROGRAM))
        path.write_text(text, encoding="utf-8")
        return path, tmp_path / "gate"

    return write


def row(lines, name):
    """Return the last row of a table by its first cell."""
    return [line.split() for line in lines if line.split()[:1] == [name]][-1]


def test_the_view_follows_the_job_below_what_the_program_prints(program):
    app, gate = program()
    terminal = sage_run("--live", app, "--", gate)
    running = terminal.wait_for("shop  RUNNING  [1-9]")
    assert 0 <= int(row(running, "out")[3]) <= int(row(running, "ask")[3])  # counted one by one
    gate.touch()
    assert terminal.wait_end() == 0
    lines = terminal.seen
    assert len([line for line in lines if line.startswith("shop  ")]) == 1  # the final one alone
    assert row(lines, "shop")[:3] == ["shop", "FINISHED", "1,000"]
    assert row(lines, "ask")[3:5] == ["1,000", "1,000"]
    assert row(lines, "out")[3:5] == ["1,000", "0"]
    calls = [
        int(cell.replace(",", ""))
        for cell in row(lines, "words")
        if cell[0].isdigit() and "." not in cell
    ]
    assert any(500 <= number <= 1000 for number in calls)  # as many as were seen last
    assert any(line.startswith("CHECKPOINTS") for line in lines)
    text = "\n".join(lines)
    for number in range(0, 1000, 100):
        printed = f"printed {number} " + "x" * 130
        assert f"{printed[:120]}\n{printed[120:]}\n" in text  # whole, as wide as the terminal is
    for number in range(0, 1000, 150):
        assert lines.count(f"logged {number}") == 1
    assert lines.index("the program goes on") > lines.index("logged 900")
    assert terminal.has_cursor
    assert b"\x1b[?1049h" not in terminal.raw  # no second screen


def test_ctrl_c_ends_the_job_and_the_view_first(program):
    app, gate = program(checkpoints=False)
    terminal = sage_run("--live", app, "--", gate)
    terminal.wait_for("shop  RUNNING  [1-9]")
    terminal.press(b"\x03")
    assert terminal.wait_end() == 130
    lines = terminal.seen
    assert any("Ctrl-C: cancelling job 'shop'" in line for line in lines)
    assert len([line for line in lines if line.startswith("shop  ")]) == 1
    assert terminal.has_cursor


def test_after_a_failure_the_traceback_is_below_the_final_table(program):
    app, gate = program(gate=-1, bad=300, policy="fail")
    terminal = sage_run(
        "--live", "--set", "restart_strategy=none", app, "--", gate, columns=80, lines=30
    )
    assert terminal.wait_end() == 1
    lines = terminal.seen
    (end,) = [n for n, line in enumerate(lines) if line.startswith("shop  FAILED")]
    trace = next(n for n, line in enumerate(lines) if line.startswith("Traceback"))
    assert end < trace
    assert any("ask failed on record 300" in line for line in lines[trace:])
    assert terminal.has_cursor


def test_output_that_goes_to_a_file_gets_what_is_printed_alone(program, tmp_path):
    app, gate = program(gate=-1)
    out = tmp_path / "out.txt"
    terminal = sage_run("--live", app, "--", gate, stdout=out)
    assert terminal.wait_end() == 0
    printed = [f"printed {number} " + "x" * 130 for number in range(0, 1000, 100)]
    assert out.read_text().splitlines() == [*printed, "the program goes on"]
    assert not any("printed" in line for line in terminal.seen)


def test_without_a_terminal_there_is_one_table_at_the_end_and_no_escape_codes(program):
    app, gate = program(gate=-1)
    words = [sys.executable, "-m", "sage.cli", "run", "--live", app, "--", gate]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stderr.count("OPERATOR") == 1
    assert row(done.stderr.splitlines(), "ask")[3] == "1,000"
    assert done.stdout.count("printed") == 10
