"""The settings of checkpoints, under their short names and under Flink's."""

from datetime import timedelta

import pytest

from sage.common.errors import ConfigError
from sage.kernel.checkpoint.checkpoint_config import CHECKPOINT_KEYS, CheckpointConfig

SHORT = {
    "checkpoint_interval": 300,
    "checkpoint_path": "/var/checkpoints",
    "checkpoint_min_pause": 5,
    "checkpoint_timeout": 60,
    "checkpoint_tolerated_failures": 2,
    "checkpoint_retained": 5,
    "checkpoint_on_cancel": "delete",
    "checkpoint_incremental": False,
    "checkpoint_max_concurrent": 1,
}
FLINK = {
    "execution.checkpointing.interval": "5 min",
    "execution.checkpointing.dir": "file:///var/checkpoints",
    "execution.checkpointing.min-pause": "5000 ms",
    "execution.checkpointing.timeout": timedelta(minutes=1),
    "execution.checkpointing.tolerable-failed-checkpoints": 2,
    "execution.checkpointing.num-retained": 5,
    "execution.checkpointing.externalized-checkpoint-retention": "DELETE_ON_CANCELLATION",
    "execution.checkpointing.incremental": False,
    "execution.checkpointing.max-concurrent-checkpoints": 1,
}


def test_both_ways_to_write_every_setting_mean_the_same():
    assert SHORT.keys() | FLINK.keys() == CHECKPOINT_KEYS
    config = CheckpointConfig.parse(SHORT)
    assert config == CheckpointConfig.parse(FLINK) == CheckpointConfig.parse(SHORT | FLINK)
    assert config == CheckpointConfig(
        interval=300.0,
        path="/var/checkpoints",
        min_pause=5.0,
        timeout=60.0,
        tolerated_failures=2,
        retained=5,
        on_cancel="delete",
        incremental=False,
    )
    rules = config.rules
    assert (rules.interval, rules.min_pause, rules.timeout, rules.tolerated_failures) == (
        300,
        5,
        60,
        2,
    )


def test_nothing_given_is_the_default():
    assert CheckpointConfig.parse({"checkpoint_interval": None}) == CheckpointConfig()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"checkpoint_intervall": 1},
            "unknown checkpoint key .* Did you mean 'checkpoint_interval'",
        ),
        ({"checkpoint_interval": 0}, "more than 0 seconds"),
        ({"checkpoint_interval": "often"}, "checkpoint_interval must be a number of seconds"),
        ({"checkpoint_interval": True}, "must be a number of seconds"),
        ({"checkpoint_timeout": float("inf")}, "must be a number of seconds"),
        ({"checkpoint_min_pause": -1}, "at least 0"),
        ({"checkpoint_retained": 0}, "from 1"),
        ({"checkpoint_tolerated_failures": 1.5}, "from 0"),
        ({"checkpoint_on_cancel": "keep"}, "'retain' or 'delete'"),
        ({"checkpoint_incremental": "yes"}, "true or false"),
        ({"checkpoint_max_concurrent": 2}, "one at a time"),
        ({"checkpoint_path": "s3://bucket"}, "must be a directory"),
        ({"checkpoint_interval": 1, "execution.checkpointing.interval": 2}, "differ"),
    ],
)
def test_what_is_wrong_is_said(values, message):
    with pytest.raises(ConfigError, match=message):
        CheckpointConfig.parse(values)
