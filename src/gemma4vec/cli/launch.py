"""`gemma4vec launch local|ssh|slurm|skypilot RECIPE|encode ...`: how work runs on several processes or machines."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gemma4vec.errors import InputError

if TYPE_CHECKING:
    from gemma4vec.launch.work import Processes

app = typer.Typer(help="Print or submit commands and job files for several processes or machines.")

Words = Annotated[
    list[str],
    typer.Argument(
        help="RECIPE [KEY=VALUE ...], or encode RUN INPUT OUT [-- OPTIONS].", metavar="WORK", show_default=False
    ),
]
Each = Annotated[
    int, typer.Option("--nproc-per-node", help="Processes on each machine; one for each GPU.", min=1, max=1024)
]
Restarts = Annotated[int, typer.Option("--max-restarts", help="Restarts after a process has died.", min=0, max=1000)]
Out = Annotated[
    str | None,
    typer.Option("--out", help="Parent of the run folder, shared by all machines.", metavar="DIR", show_default=False),
]
Python = Annotated[
    str | None,
    typer.Option("--python", help="Python with gemma4vec on those machines; default: this one.", show_default=False),
]
Workdir = Annotated[
    str | None,
    typer.Option("--workdir", help="Folder to start in; default: this one.", metavar="DIR", show_default=False),
]
Variables = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        help="Variable for those machines: NAME=VALUE, or NAME for its value here.",
        metavar="NAME=VALUE",
        show_default=False,
    ),
]
Port = Annotated[int, typer.Option("--port", help="Port at which the machines meet.", min=1024, max=65535)]
Submit = Annotated[bool, typer.Option("--submit", help="Start it, instead of printing it.")]
Output = Annotated[
    Path | None, typer.Option("--output", help="Write the text to this file.", metavar="FILE", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


@app.command("local")
def local_command(
    work: Words,
    each: Each = 1,
    restarts: Restarts = 3,
    out: Out = None,
    submit: Submit = False,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Several processes on this machine, by torchrun."""
    from gemma4vec.launch.local import local_text, local_words
    from gemma4vec.launch.submit import become
    from gemma4vec.launch.work import Processes, check_path, parse_work

    _check_streams(submit, as_json)
    parsed, processes = parse_work(work), Processes(sys.executable, each, restarts, check_path("--out", out))
    text = local_text(parsed, processes)
    _show(text, "local", output, as_json, quiet=submit)
    if submit:
        become(local_words(parsed, processes))


@app.command("ssh")
def ssh_command(
    work: Words,
    hosts: Annotated[
        str, typer.Option("--hosts", help="Hosts, separated by commas; user@host is fine.", metavar="A,B")
    ] = "",
    each: Each = 1,
    restarts: Restarts = 3,
    out: Out = None,
    python: Python = None,
    variables: Variables = None,
    workdir: Workdir = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", help="Name of the job; a script of the same name goes on with its run.", show_default=False
        ),
    ] = None,
    meeting: Annotated[
        str | None,
        typer.Option(
            "--meeting-point",
            help="Address of the first host for the others; default: its name in --hosts.",
            metavar="ADDRESS",
            show_default=False,
        ),
    ] = None,
    port: Port = 29500,
    submit: Submit = False,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Hosts that ssh reaches: a bash script with one line a host."""
    import secrets

    from gemma4vec.launch.ssh import ssh_text
    from gemma4vec.launch.submit import become, find_program
    from gemma4vec.launch.work import check_value, parse_work

    _check_streams(submit, as_json)
    parsed = parse_work(work)
    job = check_value("--name", name) or f"{parsed.name}-{secrets.token_hex(3)}"
    listed = [host.strip() for host in hosts.split(",") if host.strip()]
    processes = _processes(python, each, restarts, out, variables)
    text = ssh_text(parsed, processes, listed, _workdir(workdir), job, port=port, meeting=meeting)
    if submit:
        find_program("ssh")
    _show(text, "ssh", output, as_json, quiet=submit)
    if submit:
        become(["bash", "-c", text])


@app.command("slurm")
def slurm_command(
    work: Words,
    nodes: Annotated[
        int, typer.Option("--nodes", help="Machines; for encode: parts, each a job.", min=1, max=10000)
    ] = 1,
    each: Each = 1,
    gpus: Annotated[str | None, typer.Option("--gpus", help="GPUs of a machine.", show_default=False)] = None,
    cpus: Annotated[
        int | None, typer.Option("--cpus", help="CPU cores of a machine.", min=1, show_default=False)
    ] = None,
    memory: Annotated[str | None, typer.Option("--mem", help="Memory of a machine.", show_default=False)] = None,
    time: Annotated[
        str | None, typer.Option("--time", help="Time limit; longer trainings go on after it.", show_default=False)
    ] = None,
    partition: Annotated[str | None, typer.Option("--partition", help="Partition.", show_default=False)] = None,
    account: Annotated[str | None, typer.Option("--account", help="Account.", show_default=False)] = None,
    more: Annotated[
        list[str] | None,
        typer.Option("--sbatch", help="A further option of sbatch, as in --sbatch=--qos=high.", show_default=False),
    ] = None,
    restarts: Restarts = 3,
    out: Out = None,
    python: Python = None,
    variables: Variables = None,
    workdir: Workdir = None,
    port: Port = 29500,
    submit: Submit = False,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """A Slurm job that saves before its time limit and goes on after it."""
    from gemma4vec.launch.slurm import SlurmJob, slurm_text
    from gemma4vec.launch.submit import hand_over
    from gemma4vec.launch.work import parse_work

    job = SlurmJob(nodes, gpus, cpus, memory, time, partition, account, more or ())
    processes = _processes(python, each, restarts, out, variables)
    text = slurm_text(parse_work(work), processes, job, _workdir(workdir), port=port)
    answer = hand_over(["sbatch"], text) if submit else None
    _show(text, "slurm", output, as_json, answer)


@app.command("skypilot")
def skypilot_command(
    work: Words,
    nodes: Annotated[int, typer.Option("--nodes", help="Machines; for encode: parts.", min=1, max=10000)] = 1,
    each: Each = 1,
    gpus: Annotated[
        str | None, typer.Option("--gpus", help="GPUs of a machine, such as H100:8.", show_default=False)
    ] = None,
    spot: Annotated[bool, typer.Option("--spot", help="Use machines that may be taken away.")] = False,
    volume: Annotated[
        str | None,
        typer.Option("--volume", help="SkyPilot volume to mount at --out, shared by all.", show_default=False),
    ] = None,
    setup: Annotated[
        str, typer.Option("--setup", help="Shell line that installs gemma4vec.")
    ] = "pip install gemma4vec",
    restarts: Restarts = 3,
    out: Out = None,
    python: Python = None,
    variables: Variables = None,
    workdir: Workdir = None,
    port: Port = 29500,
    submit: Submit = False,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """A SkyPilot managed job, as YAML."""
    from gemma4vec.files import atomic_write
    from gemma4vec.launch.skypilot import SkyTask, skypilot_text
    from gemma4vec.launch.submit import find_program, hand_over
    from gemma4vec.launch.work import check_path, parse_work

    task = SkyTask(
        nodes, gpus, spot, check_path("--setup", setup) or "", volume, check_path("--workdir", workdir) or "."
    )
    text = skypilot_text(
        parse_work(work), _processes(python or "python3", each, restarts, out, variables), task, port=port
    )
    answer = None
    if submit:
        find_program("sky")
        if output is None:
            raise InputError("--submit needs --output FILE: sky reads the task from a file")
        with atomic_write(output) as stream:
            stream.write(text)
        answer = hand_over(["sky", "jobs", "launch", "--yes", "--detach-run", str(output)])
    _show(text, "skypilot", output, as_json, answer)


def _processes(
    python: str | None, each: int, restarts: int, out: str | None, variables: list[str] | None
) -> "Processes":
    from gemma4vec.launch.work import Processes, check_path, check_variables

    python, out = check_path("--python", python) or sys.executable, check_path("--out", out)
    return Processes(python, each, restarts, out, check_variables(variables or ()))


def _workdir(workdir: str | None) -> str:
    from gemma4vec.launch.work import check_path

    return check_path("--workdir", workdir) or str(Path.cwd())


def _check_streams(submit: bool, as_json: bool) -> None:
    if submit and as_json:
        raise InputError("--submit hands stdout to the work itself; leave --json out")


def _show(
    text: str, where: str, output: Path | None, as_json: bool, answer: str | None = None, *, quiet: bool = False
) -> None:
    """Print the text, or write it to a file and say so; with `quiet` print nothing."""
    from gemma4vec.cli.output import emit
    from gemma4vec.files import atomic_write

    if output is not None:
        with atomic_write(output) as stream:
            stream.write(text)
    if quiet:
        return
    value = {"where": where, "text": text, "file": str(output) if output else None, "submitted": answer}
    emit(as_json, value, lambda _: answer or (f"written: {output}" if output else text.rstrip("\n")))
