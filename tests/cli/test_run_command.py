"""`sage run`, as somebody types it."""

from __future__ import annotations

import signal
import subprocess
import sys
from textwrap import dedent

import pytest
from click.testing import CliRunner

from sage.cli.main import main
from sage.common.errors import ConfigError
from sage.core.api.local_environment import LocalEnvironment
from sage.core.api.overrides import overriding

MAKES_AN_ENVIRONMENT = """
    import sys
    from sage import LocalEnvironment

    env = LocalEnvironment("app", {"batch_size": 7, "on_error": "skip"})
    env.set_parallelism(3)
    print(__name__, sys.argv[1:], env.config)
"""


@pytest.fixture
def program(tmp_path):
    """Return what writes a program and returns its path."""

    def write(text):
        path = tmp_path / "app.py"
        path.write_text(dedent(text), encoding="utf-8")
        return path

    return write


def command(*words):
    return [sys.executable, "-m", "sage.cli", "run", *map(str, words)]


def run(*words):
    done = subprocess.run(command(*words), capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_settings_win_over_those_of_the_program(program):
    app = program(MAKES_AN_ENVIRONMENT)
    code, out, err = run(app, "--parallelism", 1, "--set", "batch_size=512", "--", "--day", "1")
    told = {"batch_size": 512, "on_error": "skip", "parallelism": 1}
    assert (code, err) == (0, "")
    assert out == f"__main__ ['--day', '1'] {told}\n"


def test_without_settings_the_program_has_its_own(program):
    code, out, err = run(program(MAKES_AN_ENVIRONMENT))
    told = {"batch_size": 7, "on_error": "skip", "parallelism": 3}
    assert (code, out, err) == (0, f"__main__ [] {told}\n", "")


def test_modules_beside_the_program_are_found_also_by_workers(program, tmp_path):
    (tmp_path / "beside.py").write_text("def double(x):\n    return 2 * x\n", encoding="utf-8")
    app = program("""
        from beside import double
        from sage import LocalEnvironment

        class Boxed:
            def __init__(self, value):
                self.value = value

        env = LocalEnvironment("app")
        boxes = env.from_batch(range(4)).map(double).map(Boxed)
        kept = boxes.key_by(lambda box: box.value % 4).map(lambda box: box.value).collect()
        env.execute()
        print(sorted(kept))
    """)
    assert run(app, "-p", 2) == (0, "[0, 2, 4, 6]\n", "")


def test_a_job_may_outlive_the_last_line_of_its_program(program):
    app = program("""
        from sage import LocalEnvironment

        OFFSET = 10
        env = LocalEnvironment("app")
        env.from_batch(range(3)).map(lambda x: x + OFFSET).print()
        env.submit()
    """)
    assert run(app) == (0, "10\n11\n12\n", "")


def test_a_failure_is_shown_from_the_program_on(program):
    app = program("""
        def fail():
            raise RuntimeError("on purpose")

        fail()
    """)
    code, out, err = run(app)
    lines = err.splitlines()
    assert (code, out) == (1, "")
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == f'  File "{app}", line 5, in <module>'
    assert lines[-1] == "RuntimeError: on purpose"
    assert "sage/cli" not in err


def test_a_program_that_cannot_be_read_is_shown_as_python_shows_it(program):
    code, _, err = run(program("this is no program\n"))
    assert code == 1
    assert err.splitlines()[-1].startswith("SyntaxError")
    assert "sage/cli" not in err


def test_the_program_chooses_its_exit_code(program):
    assert run(program("raise SystemExit(3)\n"))[0] == 3


def test_settings_that_nothing_takes_are_told(program):
    code, out, err = run(program("print('done')\n"), "--set", "batch_size=5")
    assert (code, out) == (0, "done\n")
    assert "no environment" in err
    assert "batch_size" in err


def test_after_ctrl_c_the_exit_code_says_so(program):
    app = program("""
        import itertools
        from sage import LocalEnvironment

        env = LocalEnvironment("app")
        env.from_batch(itertools.count).filter(lambda x: x == 0).sink(
            lambda x: print("running", flush=True)
        )
        env.execute()
    """)
    with subprocess.Popen(
        command(app), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "running\n"
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Ctrl-C: cancelling job 'app'" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--set", "paralelism=2"], "Did you mean 'parallelism' or"),
        (["--set", "checkpoint_intervall=2"], "Did you mean 'checkpoint_interval'"),
        (["--set", "batch_size=many"], "batch_size"),
        (["--set", "checkpoint_retained=0"], "checkpoint_retained"),
        (["--set", "restart_strategy=sometimes"], "sometimes"),
        (["--set", "batch_size"], "KEY=VALUE"),
        (["--set", "batch_size=[1]"], "one value"),
        (["--set", "batch_size=1", "--set", "batch_size=2"], "set twice"),
        (["-p", "2", "--set", "parallelism=2"], "set twice"),
        (["-p", "0"], "--parallelism"),
    ],
)
def test_what_is_wrong_with_settings_is_told_before_the_program_begins(program, words, told):
    app = program("raise AssertionError('it began')\n")
    result = CliRunner().invoke(main, ["run", str(app), *words])
    assert result.exit_code == 2
    assert told in " ".join(result.output.split())


def test_settings_within_settings_add_up():
    with overriding({"batch_size": 5}), overriding({"parallelism": 2}):
        assert LocalEnvironment("app").config == {"batch_size": 5, "parallelism": 2}
    assert LocalEnvironment("app").config == {}


def test_what_environments_do_not_know_is_refused():
    with pytest.raises(ConfigError, match="batch_size"), overriding({"batchsize": 5}):
        raise AssertionError("never reached")
