"""A short slice of `make soak`."""

from recovery.soak import soak


def test_a_job_at_full_speed_goes_on_and_opens_no_more_files(tmp_path):
    first, *_, last = soak(3.0, 0.75, tmp_path)
    assert last.speed
    assert last.files <= first.files + 4
    assert last.threads <= first.threads
