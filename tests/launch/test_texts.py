"""What `launch` writes: golden texts, which bash and the YAML reader accept, and nothing in them that a shell runs."""

import shlex
import subprocess
from pathlib import Path

import pytest

from gemma4vec.errors import InputError
from gemma4vec.launch.local import local_text
from gemma4vec.launch.skypilot import SkyTask, skypilot_text
from gemma4vec.launch.slurm import SlurmJob, slurm_text
from gemma4vec.launch.ssh import ssh_text
from gemma4vec.launch.work import Processes, Work, check_host, check_path, check_value, check_variables, parse_work
from gemma4vec.reading.yaml_values import parse_yaml

TRAIN = Work(False, ("recipe.yaml", "seed=3"), "tiny")
ENCODE = Work(True, ("runs/a", "my texts.jsonl", "out", "--format", "npy"), "encode-out")
ON_VOLUME = Work(True, ("runs/a", "my texts.jsonl", "/runs/out", "--format", "npy"), "encode-out")
TWO = Processes("python3", 2, 3, "/runs")
ONE = Processes("python3", 1, 3, "/runs")
ENCODE_WORDS = ("runs/a", "'my texts.jsonl'", "out", "--format", "npy")
TORCHRUN = "python3 -m gemma4vec.launch.torchrun"
ATTACHED = "python3 -m gemma4vec.launch.attached gemma4vec.launch.torchrun"
SIZES = "--nproc-per-node 2 --max-restarts 3 -m gemma4vec train recipe.yaml seed=3 --out /runs"


def accepts(script: str) -> bool:
    return subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_local() -> None:
    assert local_text(TRAIN, TWO) == f"{TORCHRUN} --standalone {SIZES}\n"
    assert (
        local_text(ENCODE, TWO) == "python3 -m gemma4vec encode runs/a 'my texts.jsonl' out --format npy --workers 2\n"
    )


def test_ssh() -> None:
    script = ssh_text(TRAIN, TWO, ["a.net", "me@10.0.0.2"], "/work dir", "j1")
    meeting = "--nnodes 2 --rdzv-backend c10d --rdzv-id j1 --rdzv-endpoint a.net:29500 --rdzv-conf"
    go = "'cd '\"'\"'/work dir'\"'\"' && exec"
    lines = [line for line in script.splitlines() if line.startswith("on ")]
    assert lines == [
        f"on a.net {go} {ATTACHED} {meeting} is_host=1 {SIZES} --job j1' & pids+=($!)",
        f"on me@10.0.0.2 {go} {ATTACHED} {meeting} is_host=0 {SIZES} --job j1' & pids+=($!)",
    ]
    assert accepts(script)
    script = ssh_text(ENCODE, ONE, ["a", "b"], "/w", "j1")
    lines = [line for line in script.splitlines() if line.startswith("on ")]
    assert "attached gemma4vec encode runs/a" in lines[0]
    assert lines[0].endswith("out --format npy --shard 1/2' & pids+=($!)")
    assert lines[1].endswith("out --format npy --shard 2/2' & pids+=($!)")
    assert accepts(script)


def test_names_that_only_ssh_knows_need_a_meeting_point() -> None:
    script = ssh_text(TRAIN, TWO, ["alias1", "alias2"], "/w", "j1", meeting="10.0.0.1")
    assert script.count("--rdzv-endpoint 10.0.0.1:29500") == 2 and "alias1:29500" not in script
    with pytest.raises(InputError, match="no name or IPv4 address"):
        ssh_text(TRAIN, TWO, ["a", "b"], "/w", "j1", meeting="a b")


def test_variables_are_set_on_each_machine() -> None:
    processes = Processes("python3", 1, 3, "/runs", ("A=b c", "B=$x"))
    start = "env 'A=b c' 'B=$x' python3 -m"
    assert local_text(TRAIN, processes).startswith(start)
    assert f"exec {start} gemma4vec encode" in skypilot_text(ON_VOLUME, processes, SkyTask())
    assert f'exec "$@"\' bash {start} {TORCHRUN[11:]}' in slurm_text(TRAIN, processes, SlurmJob(2), "/w")
    assert f"\nsrun {start} gemma4vec encode" in slurm_text(ENCODE, processes, SlurmJob(2), "/w")
    quoted = shlex.quote(f"cd /w && exec {start} gemma4vec.launch.attached gemma4vec encode {' '.join(ENCODE_WORDS)}")
    assert f"on a {quoted[:-1]}" in ssh_text(ENCODE, processes, ["a"], "/w", "j")


def test_variables_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "yes=1")
    monkeypatch.delenv("NOT_HERE", raising=False)
    assert check_variables(["A=", "B=x y", "HERE"]) == ("A=", "B=x y", "HERE=yes=1")
    for given, said in [
        ("1A=x", "no variable"),
        ("", "no variable"),
        ("NOT_HERE", "not set here"),
        ("A=\n", "control"),
    ]:
        with pytest.raises(InputError, match=said):
            check_variables([given])


def test_slurm_trains_and_goes_back_into_the_queue() -> None:
    job = SlurmJob(2, gpus="h100:4", cpus=16, memory="64G", time="24:00:00", partition="gpu", more=["--qos=high"])
    script = slurm_text(TRAIN, TWO, job, "/work dir")
    assert (
        script
        == f"""#!/bin/bash
#SBATCH --job-name=tiny
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=USR1@120
#SBATCH --nodes=2
#SBATCH --output=tiny-%j.log
#SBATCH --gpus-per-node=h100:4
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --partition=gpu
#SBATCH --qos=high

cd '/work dir' || exit 2
# All machines meet at the first one. Its name in Slurm need not be one in the network.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
head=$(scontrol show node "$first" | grep -o 'NodeAddr=[^ ]*' | cut -d= -f2)
srun --kill-on-bad-exit=0 bash -c 'export PET_RDZV_CONF="is_host=$((SLURM_NODEID == 0))"; exec "$@"' bash \
{TORCHRUN} --nnodes "$SLURM_NNODES" --rdzv-backend c10d \
--rdzv-id "$SLURM_JOB_ID-${{SLURM_RESTART_COUNT:-0}}" --rdzv-endpoint "${{head:-$first}}:29500" \
{SIZES} --job "slurm-$SLURM_JOB_ID"
code=$?
# 75: stopped by a signal, what was finished is kept. Other codes: finished, or failed for good.
if [ "$code" -eq 75 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt 100 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""
    )


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"), [(0, 0, False), (1, 0, False), (75, 3, True), (75, 100, False)]
)
def test_only_a_stopped_training_is_requeued(code: int, restarts: int, requeued: bool, tmp_path: Path) -> None:
    for name, line in (("srun", f"exit {code}"), ("scontrol", f'echo "$*" >> {tmp_path}/scontrol.log; echo host1')):
        (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "h[1-2]"}
    environment |= {"SLURM_NNODES": "2", "SLURM_RESTART_COUNT": str(restarts)}
    script = slurm_text(TRAIN, TWO, SlurmJob(2), str(tmp_path))
    done = subprocess.run(["bash", "-c", script], env=environment, check=False)
    asked = (tmp_path / "scontrol.log").read_text().splitlines()
    assert done.returncode == code
    assert asked == ["show hostnames h[1-2]", "show node host1", *(["requeue 7"] if requeued else [])]


def test_slurm_encodes_as_an_array() -> None:
    script = slurm_text(ENCODE, ONE, SlurmJob(8), "/w")
    assert "#SBATCH --array=1-8\n" in script and "--signal=USR1@120\n" in script and "#SBATCH --nodes=1\n" in script
    assert (
        "\nsrun python3 -m gemma4vec encode runs/a 'my texts.jsonl' out --format npy "
        '--shard "$SLURM_ARRAY_TASK_ID/8"\ncode=$?\n'
    ) in script
    assert 'scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"' in script
    assert accepts(script)


def test_skypilot() -> None:
    text = skypilot_text(TRAIN, TWO, SkyTask(2, "H100:8", spot=True, setup="pip install 'x: y'", volume="v1"))
    task = parse_yaml(text, "task")
    run = task.pop("run")
    assert task == {
        "name": "tiny",
        "num_nodes": 2,
        "workdir": ".",
        "resources": {
            "job_recovery": {"max_restarts_on_errors": 3, "recover_on_exit_codes": [75]},
            "accelerators": "H100:8",
            "use_spot": True,
        },
        "volumes": {"/runs": "v1"},
        "setup": "set -e\npip install 'x: y'\n",
    }
    assert run.splitlines()[-1] == (
        f'exec {TORCHRUN} --nnodes "$SKYPILOT_NUM_NODES" --rdzv-backend c10d --rdzv-id "$SKYPILOT_TASK_ID" '
        f'--rdzv-endpoint "$head:29500" --rdzv-conf "is_host=$is_host" {SIZES} --job "$SKYPILOT_TASK_ID"'
    )
    assert accepts(run)
    run = parse_yaml(skypilot_text(ON_VOLUME, ONE, SkyTask(4)), "task")["run"]
    assert run.endswith('/runs/out --format npy --shard "$((SKYPILOT_NODE_RANK + 1))/$SKYPILOT_NUM_NODES"\n')


def test_nothing_in_a_word_is_run_by_a_shell(tmp_path: Path) -> None:
    trap = f"x; touch {tmp_path}/hit; $(touch {tmp_path}/hit) `touch {tmp_path}/hit` ' \""
    work = Work(False, (trap,), "tiny")
    processes = Processes("true", 1, 0, trap)
    scripts = [
        local_text(work, processes),
        slurm_text(work, processes, SlurmJob(), str(tmp_path)),
        ssh_text(work, processes, ["a"], str(tmp_path), "j"),
    ]
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/bash\nexec bash -c "${@: -1}"\n')
    ssh.chmod(0o755)
    for script in scripts:
        assert accepts(script)
        subprocess.run(
            ["bash", "-c", script], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, stderr=subprocess.DEVNULL, check=False
        )
    assert not (tmp_path / "hit").exists()


@pytest.mark.parametrize(
    "host", ["", "-oProxyCommand=x", "a;b", "a b", "a\nb", "$(x)", "me@", "@a", "me@-a", "a" * 256]
)
def test_odd_hosts_are_refused(host: str) -> None:
    with pytest.raises(InputError, match="no name or IPv4 address"):
        check_host(host)


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no hosts"):
        ssh_text(TRAIN, TWO, [], "/w", "j")
    with pytest.raises(InputError, match="names a twice"):
        ssh_text(TRAIN, TWO, ["a", "me@a"], "/w", "j")
    for value in ("a b", "x\n#SBATCH --uid=0", "-x", "$(x)", ""):
        with pytest.raises(InputError, match="--partition"):
            check_value("--partition", value)
    for option in ("qos=high", "--qos=a b", "--x y=1", "--"):
        with pytest.raises(InputError, match="--"):
            slurm_text(TRAIN, TWO, SlurmJob(more=[option]), "/w")
    for path in ("", "-x", "a\nb", "a\x1b[0m"):
        with pytest.raises(InputError, match="--out"):
            check_path("--out", path)
    with pytest.raises(InputError, match="--out is missing"):
        skypilot_text(TRAIN, Processes("python3"), SkyTask())
    with pytest.raises(InputError, match="absolute"):
        skypilot_text(TRAIN, Processes("python3", out="runs"), SkyTask())
    for out, said in [
        ("out", "writes to out: give the absolute path"),
        ("~/out", "absolute path"),
        ("/tmp/out", "not in --out /runs"),
        ("/runs/../out", "not in --out /runs"),
        ("/runs2", "not in --out /runs"),
    ]:
        with pytest.raises(InputError, match=said):
            skypilot_text(Work(True, ("runs/a", "texts", out), "encode"), ONE, SkyTask())
    alone = skypilot_text(Work(True, ("runs/a", "texts", "/nfs/out"), "encode"), Processes("python3"), SkyTask())
    assert "volumes" not in alone


def test_a_part_of_an_encoding_is_one_process() -> None:
    for text in (
        lambda: ssh_text(ENCODE, TWO, ["a", "b"], "/w", "j1"),
        lambda: slurm_text(ENCODE, TWO, SlurmJob(2), "/w"),
        lambda: skypilot_text(ON_VOLUME, TWO, SkyTask(2)),
    ):
        with pytest.raises(InputError, match="--nproc-per-node 2: a part of an encoding is one process"):
            text()


def test_work_is_read_from_words() -> None:
    assert parse_work(["encode", "r", "in", "some/My Out!", "--format", "npy"]) == Work(
        True, ("r", "in", "some/My Out!", "--format", "npy"), "encode-my-out"
    )
    work = parse_work(["gemma4vec/echo_delta_causal", "seed=4"])
    assert not work.encodes and work.words == ("gemma4vec/echo_delta_causal", "seed=4")
    for words, what in [
        ([], "nothing to launch"),
        (["nope"], "no recipe 'nope'"),
        (["gemma4vec/echo_delta_causal", "sed=4"], "sed"),
        (["encode", "r", "in"], "needs RUN INPUT OUT"),
        (["encode", "r", "in", "out", "--shard=1/2"], "leave --shard out"),
        (["encode", "r", "in", "out", "--workers", "2"], "leave --workers out"),
        (["encode", "r", "in", "o\nut"], "no word"),
    ]:
        with pytest.raises(InputError, match=what):
            parse_work(words)
