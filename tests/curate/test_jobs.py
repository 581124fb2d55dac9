"""Commands as processes of their own."""

import time

from curate.jobs import Jobs


def ended(job):
    deadline = time.monotonic() + 120
    while job.is_running and time.monotonic() < deadline:
        time.sleep(0.1)
    return job


def test_a_job_ends_with_what_it_printed():
    job = ended(Jobs().start("formats", ["formats"]))
    assert job.returncode == 0
    assert "any other, with --columns" in job.output()
    assert len(job.output(lines=2).splitlines()) == 2


def test_a_job_that_fails_says_why(tmp_path):
    job = ended(Jobs().start("show", ["show", str(tmp_path)]))
    assert job.returncode == 1
    assert (
        job.output()
        == f"curate: {tmp_path}: not a run (no manifest.json); make one with curate audit DATA -o {tmp_path}"
    )


def test_the_same_command_does_not_run_twice_at_once():
    jobs = Jobs()
    first, again, other = (jobs.start("x", [name]) for name in ("formats", "formats", "doctor"))
    assert first is again
    assert jobs.all() == [other, first]
    assert jobs.start("x", ["formats"]) is first or not first.is_running
    for job in jobs.all():
        ended(job)


def test_a_job_can_be_stopped():
    job = Jobs().start("x", ["selftest", "--help"])
    job.stop()
    assert ended(job).returncode != 0 or "Usage" in job.output()
    job.stop()  # twice does no harm
