"""The public types, as `mypy --strict` sees them in programs of users."""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def check(name, tmp_path):
    """Check a file as a user's own: strictly, with the package as it is installed or found."""
    settings = tmp_path / "mypy.ini"
    settings.write_text(
        f"[mypy]\nstrict = True\nfollow_imports = silent\nmypy_path = {ROOT / 'src'}\n"
    )
    command = [sys.executable, "-m", "mypy", "--config-file", str(settings), "--no-error-summary"]
    cache = ROOT / ".mypy_cache" / "typing"
    done = subprocess.run(
        [*command, "--cache-dir", str(cache), str(HERE / name)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=tmp_path,
    )
    assert not done.stderr, done.stderr
    return done.stdout


def test_the_types_of_the_examples_are_found(tmp_path):
    assert check("examples.py", tmp_path) == ""


def test_each_mistake_is_found_on_its_line_and_nothing_else(tmp_path):
    report = check("mistakes.py", tmp_path)
    found = {int(number) for number in re.findall(r"mistakes\.py:(\d+): error", report)}
    lines = (HERE / "mistakes.py").read_text().splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert found == wrong, report
