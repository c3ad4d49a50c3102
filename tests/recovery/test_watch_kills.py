"""A job that watches a directory is killed while files appear: each record is committed once."""

import random

from recovery.watch_kills import one_round


def test_killed_while_files_appear(tmp_path):
    one_round(tmp_path / "round", random.Random(11), kills=3, parallelism=1)
