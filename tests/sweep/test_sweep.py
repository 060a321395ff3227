"""The course of a sweep: what is run, kept, told and gone on with."""

import errno
import json

import pytest
from pretend import Here, grid, leave, record, written

from compress.budget import parse_limit
from compress.errors import CompressError, SweepError, WriteError
from compress.files import alone_in
from compress.sweep.executor import Ended
from compress.sweep.space import Axis, Space
from compress.sweep.sweep import Order, sweep, words


def order(tmp_path, space=None, limits=(), model=b"weights") -> Order:
    path = tmp_path / "n.pt"
    path.write_bytes(model)
    given = (str(path), "--data", "photos")
    return Order(path, None, space or grid("1MB", "2MB"), tuple(map(parse_limit, limits)), given, (), tmp_path / "out")


def document(tmp_path):
    return json.loads((tmp_path / "out" / "sweep.json").read_text())


def test_every_trial_is_a_run_and_the_smallest_that_meets_the_limits_is_named(tmp_path):
    here = Here()
    trials = sweep(order(tmp_path, grid("1MB", "2MB", "4MB"), ["iou>=0.799"]), here)
    assert [trial.state for trial in trials] == ["done"] * 3
    first = here.jobs[0]
    assert first.folder == tmp_path / "out" / "trials" / "1mb"
    asked = ("run", str(tmp_path / "n.pt"), "--data", "photos", "--budget", "1MB", "--budget", "iou>=0.799", "--out")
    assert first.arguments == (*asked, str(first.folder))
    found = document(tmp_path)
    assert found["front"] == ["1mb", "2mb", "4mb"]
    # 0.805, 0.81 and 0.82, each 0.01 more or less
    assert found["smallest"] == "2mb"
    assert here.closed


def test_a_trial_that_fails_is_kept_with_its_message_and_the_others_go_on(tmp_path):
    def does(job):
        return Ended(job.name, 2, "compress: no student fits in 1,000 bytes") if job.name == "1mb" else written(job)

    trials = sweep(order(tmp_path), Here(does))
    assert {(trial.name, trial.state, trial.message) for trial in trials} == {
        ("1mb", "failed", "no student fits in 1,000 bytes"),
        ("2mb", "done", ""),
    }
    assert "no student fits in 1,000 bytes" in (tmp_path / "out" / "sweep.html").read_text()


def test_a_run_that_ends_without_a_report_has_failed_whatever_its_code(tmp_path):
    with pytest.raises(SweepError, match="all 2 trials so far failed, 1mb thus: KeyError: 'a'"):
        sweep(order(tmp_path), Here(lambda job: Ended(job.name, 1, "KeyError: 'a'")))


def test_three_that_fail_alike_stop_it_and_the_same_command_tries_them_again(tmp_path):
    asked = order(tmp_path, grid("1MB", "2MB", "3MB", "4MB", "5MB", "6MB"))
    here = Here(lambda job: Ended(job.name, 2, "compress: photos: no such folder"))
    with pytest.raises(SweepError, match="all 3 trials so far failed, 1mb thus: photos: no such folder"):
        sweep(asked, here)
    assert here.closed
    assert len(here.jobs) <= 5
    assert [trial.state for trial in sweep(asked, Here())] == ["done"] * 6


def test_failures_that_differ_do_not_stop_it(tmp_path):
    def does(job):
        return written(job) if job.name == "4mb" else Ended(job.name, 2, f"compress: no student fits in {job.name}")

    trials = sweep(order(tmp_path, grid("1MB", "2MB", "3MB", "4MB")), Here(does))
    assert [trial.state for trial in trials] == ["failed"] * 3 + ["done"]


def test_a_trial_whose_worker_died_goes_on_from_its_checkpoints(tmp_path):
    seen = []

    def does(job):
        seen.append(job.arguments)
        if len(seen) > 1:
            return written(first)
        (job.folder / "checkpoints").mkdir(parents=True)
        (job.folder / "checkpoints" / "run.json").write_text("{}")
        return Ended(job.name, None, "")

    here = Here(does, slots=1)
    from compress.sweep.trials import job_of

    first = job_of({"--budget": "1MB"}, tmp_path / "out", (), (), (), 1, 0)
    (trial,) = sweep(order(tmp_path, grid("1MB")), here)
    assert trial.state == "done"
    assert seen[1] == ("run", "--resume", str(tmp_path / "out" / "trials" / "1mb"))


def test_a_trial_that_is_killed_again_and_again_has_failed(tmp_path):
    with pytest.raises(SweepError, match="was killed 10 times; is there enough memory"):
        sweep(order(tmp_path, grid("1MB")), Here(lambda job: Ended(job.name, None, "")))


def test_a_driver_that_dies_at_any_moment_loses_no_trial_and_makes_none_twice(tmp_path):
    made = []

    class Killed(Exception):
        pass

    for moment in range(8):

        def does(job, moment=moment):
            if moment % 2:
                made.append(job.name)
                written(job)
                raise Killed  # when the run has ended, before that is told
            if moment and len(made) % 2:
                raise Killed  # before it has
            made.append(job.name)
            return written(job)

        try:
            trials = sweep(order(tmp_path, grid("1MB", "2MB", "3MB", "4MB", "5MB")), Here(does))
        except Killed:
            continue
    assert sorted(made) == ["1mb", "2mb", "3mb", "4mb", "5mb"]
    assert [trial.state for trial in trials] == ["done"] * 5


def test_a_report_of_other_settings_in_the_folder_of_a_trial_is_not_its_result(tmp_path):
    folder = tmp_path / "out" / "trials" / "1mb"
    leave(record(10, 1.0, (0.5,) * 10, ("2MB",)), folder)
    here = Here()
    sweep(order(tmp_path, grid("1MB")), here)
    assert [job.name for job in here.jobs] == ["1mb"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"space": grid("1MB", "4MB")}, "--budget 1MB,2MB there, --budget 1MB,4MB here"),
        ({"space": Space((Axis("--budget", ("1MB", "2MB")), Axis("--seed", ("0",))), 2)}, "--seed not given there"),
        ({"limits": ["iou>=0.9"]}, "limits not given there, limits iou>=0.9 here"),
        ({"model": b"others"}, "content of MODEL"),
    ],
)
def test_a_folder_of_another_sweep_says_what_differs(tmp_path, change, says):
    sweep(order(tmp_path), Here())
    here = Here()
    with pytest.raises(CompressError) as error:
        sweep(order(tmp_path, **change), here)
    assert says in str(error.value)
    assert "holds another sweep" in str(error.value)
    assert not here.jobs
    assert here.closed


def test_a_folder_with_something_else_of_that_name_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sweep.json").write_text('["mine"]')
    with pytest.raises(CompressError, match="was not written by a sweep"):
        sweep(order(tmp_path), Here())
    assert (tmp_path / "out" / "sweep.json").read_text() == '["mine"]'


def test_a_second_driver_is_refused(tmp_path):
    with alone_in(tmp_path / "out" / "trials", tmp_path / "out"), pytest.raises(WriteError, match="another run writes"):
        sweep(order(tmp_path), Here())


def test_a_disk_that_is_full_in_the_middle_is_one_line(tmp_path):
    def does(job):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(WriteError, match="No space left on device; mend that, and the same command goes on"):
        sweep(order(tmp_path), Here(does))


def test_ctrl_c_closes_the_executor_and_leaves_a_page_to_go_on_from(tmp_path):
    def does(job):
        if job.name == "2mb":
            raise KeyboardInterrupt
        return written(job)

    here = Here(does)
    with pytest.raises(KeyboardInterrupt):
        sweep(order(tmp_path), here)
    assert here.closed
    later = Here()
    assert [trial.state for trial in sweep(order(tmp_path), later)] == ["done"] * 2
    assert [job.name for job in later.jobs] == ["2mb"]


def test_time_left_is_told_in_one_unit():
    assert [words(each) for each in (0.2, 40, 720, 12600)] == ["1 s", "40 s", "12 min", "3.5 h"]
