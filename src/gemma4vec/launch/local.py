"""Several processes on this machine: one line."""

from gemma4vec.launch.work import Processes, Work, shell_line


def local_text(work: Work, processes: Processes) -> str:
    """Return one line of shell, with its line break."""
    return f"{shell_line(local_words(work, processes))}\n"


def local_words(work: Work, processes: Processes) -> list[str]:
    """The same as words. torchrun's own process is the job that goes on after a restart."""
    if work.encodes:
        return processes.run(*work.encode("--workers", str(processes.each)))
    return processes.run(*processes.torchrun("--standalone"), *work.train(processes.out))
