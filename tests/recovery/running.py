"""Runs of a pipeline: without faults, and with what a script says."""

from recovery.ledger import Ledger
from recovery.pipelines import loop
from recovery.scripted_source import Checkpoint, Fail, ScriptedSource
from sage import LocalEnvironment


def without_faults(pipeline, script):
    """Return what comes out if nothing fails and no checkpoints are taken."""
    env = LocalEnvironment("undisturbed")
    values = [value for value in script if not isinstance(value, (Fail, Checkpoint))]
    ledgers = build(env, pipeline, ScriptedSource(values))
    env.execute(progress=False)
    return contents(pipeline, ledgers)


def with_faults(pipeline, script, path, **options):
    """Return what is committed, however often the script fails."""
    env = recovering(path, **options)
    ledgers = build(env, pipeline, ScriptedSource(script, checkpoint_of(env)))
    env.execute(progress=False)
    return contents(pipeline, ledgers)


def contents(pipeline, ledgers):
    """Return what was committed; what goes round in a loop comes out in no order."""
    found = [ledger.committed for ledger in ledgers]
    return [sorted(records) for records in found] if pipeline is loop else found


def recovering(path, interval=3600, **options):
    """Return an environment that starts again at once, and takes checkpoints when asked."""
    env = LocalEnvironment("recovering")
    env.enable_checkpointing(interval, path, **options)
    env.set_restart_strategy("fixed-delay", max_attempts=1000, restart_delay=0)
    return env


def build(env, pipeline, source):
    """Put a ledger behind each result of a pipeline."""
    results = pipeline(env, env.from_source(source, name="numbers"))
    ledgers = [Ledger() for _ in results]
    for number, (result, ledger) in enumerate(zip(results, ledgers, strict=True)):
        result.sink(ledger, name=f"ledger {number}")
    return ledgers


def checkpoint_of(env):
    """Return what asks for a checkpoint of the job that is to be."""

    def take():
        return env.job._job.checkpoint()

    return take
