"""A training that is started again goes on with its run; one that was asked to stop does not."""

from pathlib import Path

import pytest

from gemma4vec.errors import InputError, Interrupted
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.training.job import STOPPING_VARIABLE, Job, check_not_stopped, current_job

AGENT = ("here", 10, 1.5)


def begun(home: Path, job: Job) -> RunFolder:
    return RunFolder.create(home, "tiny", "name: tiny\n", **job.manifest_fields())


def test_a_named_job_finds_its_newest_run_and_no_other(tmp_path: Path) -> None:
    job = Job("slurm-7", 0)
    assert job.find_run(tmp_path) is None
    begun(tmp_path, Job("slurm-8", 0))
    begun(tmp_path, Job("slurm-7", 0, AGENT))  # of a torchrun that has this name as its id
    RunFolder.create(tmp_path, "tiny", "name: tiny\n")
    assert job.find_run(tmp_path) is None
    run = begun(tmp_path, job)
    assert job.find_run(tmp_path) == run


@pytest.mark.parametrize(
    ("attempt", "agent", "is_found"),
    [
        (0, AGENT, True),  # a change of machines restarts processes without counting
        (1, AGENT, True),
        (1, ("other host", 10, 1.5), True),
        (0, ("other host", 10, 1.5), False),
        (1, ("here", 11, 2.5), False),  # another torchrun with the same id
        (0, ("here", 11, 2.5), False),
    ],
)
def test_torchrun_goes_on_with_its_own_run(
    attempt: int, agent: tuple[str, int, float], is_found: bool, tmp_path: Path
) -> None:
    run = begun(tmp_path, Job("torchrun none", 0, AGENT))
    assert Job("torchrun none", attempt, agent).find_run(tmp_path) == (run if is_found else None)


def test_the_job_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert current_job(None) is None
    assert current_job("slurm-7") == Job("slurm-7", 0)
    with pytest.raises(InputError, match="--job"):
        current_job("../x")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "abc")
    assert current_job(None) is None  # torchrun without --max-restarts
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    job = current_job(None)
    assert job is not None and (job.name, job.attempt) == ("torchrun abc", 2) and job.agent is not None


def test_a_stopped_training_is_not_restarted_by_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun(tmp_path, Job("j", 0))
    run.update_manifest(stopped_by="stopped by SIGUSR1 after step 3")
    check_not_stopped(run)  # a person, or a scheduler, starts it again
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with pytest.raises(Interrupted, match="SIGUSR1 after step 3"):
        check_not_stopped(run)
    run.update_manifest(stopped_by=None)
    check_not_stopped(run)
    monkeypatch.setenv(STOPPING_VARIABLE, "1")
    with pytest.raises(Interrupted, match="asked to stop"):
        check_not_stopped()
