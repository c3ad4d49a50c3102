"""A job that is killed goes on from its latest checkpoint, and puts out each result once."""

import random

import pytest

from recovery.kill_sweep import check, is_over, kill_until_done, start, undisturbed
from recovery.killed_job import SHORT, format_sinks, outputs, run, text_sinks

STRIDE = {"text": 12, "formats": 60}


def test_killed_at_random_again_and_again(tmp_path):
    expected = undisturbed(tmp_path / "undisturbed")
    directory = tmp_path / "killed"
    kill_until_done(directory, random.Random(7))
    check(directory, expected)


@pytest.mark.parametrize(
    ("name", "sinks", "arguments"),
    [("text", text_sinks, []), ("formats", format_sinks, ["--formats"])],
)
def test_killed_on_the_way_through_checkpoints_and_commits(tmp_path, name, sinks, arguments):
    stride = STRIDE[name]
    with start(tmp_path, "--steps", stride, *arguments) as process:
        out, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    steps = int(out.split()[-1])
    assert steps > 60
    run(tmp_path / "undisturbed", records=SHORT, interval=None, sinks=sinks)
    expected = outputs(tmp_path / "undisturbed")
    for step in range(0, steps + 1, stride):
        directory = tmp_path / str(step)
        if not is_over(directory):
            run(directory, records=SHORT, sinks=sinks)
        check(directory, expected)
