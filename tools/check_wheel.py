"""Build sdist and wheel, install the wheel in a fresh environment outside the checkout, and use it there.

    python tools/check_wheel.py [--from-index [--torch-index URL]] [--keep]

The wheel is made from the unpacked sdist, so a file that is missing there is missing everywhere. pip installs it into a
fresh environment that has nothing but its declared dependencies and theirs: a dependency that nobody declared is not
there. They are linked from this environment, or with --from-index installed, with constraints.txt (two CPU minutes).
Commands then run in an empty folder with an empty home, without a network. The two archives are left in dist/.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

from linked_environment import DependencyError, make_linked_environment

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
PIP = ["-m", "pip", "--quiet", "--disable-pip-version-check"]
# What a person who unpacks the sdist needs besides the package: to read, to install, to test.
IN_SDIST = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "constraints.txt",
    "pyproject.toml",
    "docs/architecture.md",
    "tests/conftest.py",
    "tools/check_wheel.py",
    "src/gemma4vec/recipe/shipped/gemma4vec/echo_delta_causal.yaml",
)
# Read in the checkout; whether the wheel has them makes no difference.
NOT_IN_WHEEL = {".md"}
RECIPE, PLAN, PLAN_RECIPES = "echo_delta_causal", "recipes_270m", 6
EXTRAS = ("bundled",)
NO_BASE = "is not cached on this machine and the hub is out of reach"


class WheelError(Exception):
    """One line: what was checked, what came instead."""


def run(words: list[str], *, where: Path, environment: dict[str, str] | None = None, code: int | None = 0) -> str:
    """Standard output of a command.

    Raises:
        WheelError: it ended with another code; its last lines are shown.
    """
    done = subprocess.run(words, cwd=where, env=environment, capture_output=True, text=True, check=False)
    if code is not None and done.returncode != code:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise WheelError(f"`{' '.join(words)}` ended with {done.returncode} instead of {code}:\n{tail}")
    return done.stdout


def package_files() -> set[str]:
    """Files of the package, relative to src/: those that git does not ignore; in an unpacked sdist all but bytecode."""
    if (ROOT / ".git").exists():
        listed = run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "src"], where=ROOT).splitlines()
        paths = [ROOT / name for name in listed]
    else:
        paths = [path for path in (ROOT / "src" / "gemma4vec").rglob("*") if path.suffix != ".pyc"]
    files = [path.relative_to(ROOT / "src") for path in paths if path.is_file()]
    return {file.as_posix() for file in files if file.suffix not in NOT_IN_WHEEL}


def build(made: Path) -> Path:
    """Build the sdist into dist/ and the wheel from it; return the wheel.

    Raises:
        WheelError: a file is missing in either.
    """
    for old in DIST.glob("gemma4vec-*"):
        old.unlink()
    DIST.mkdir(exist_ok=True)
    # As pip calls it, which takes a fifth of pip's time.
    hook = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
    run([sys.executable, "-c", hook, "build_sdist", str(DIST)], where=ROOT)
    sdist = next(DIST.glob("gemma4vec-*.tar.gz"))
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
        archive.extractall(made, filter="data")
    missing = sorted(({f"src/{name}" for name in package_files()} | set(IN_SDIST)) - names)
    if missing:
        raise WheelError(f"the sdist has no {', '.join(missing[:5])}; see MANIFEST.in")
    source = next(made.glob("gemma4vec-*"))
    run([sys.executable, "-c", hook, "build_wheel", str(DIST)], where=source)
    wheel = next(DIST.glob("gemma4vec-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        listed = [name for name in archive.namelist() if ".dist-info/" not in name]
        held = {name for name in listed if Path(name).suffix not in NOT_IN_WHEEL}
    if held != package_files():
        missing, extra = sorted(package_files() - held)[:5], sorted(held - package_files())[:5]
        raise WheelError(
            f"the wheel lacks {missing or 'nothing'} and has {extra or 'nothing'} too many; see pyproject.toml"
        )
    return wheel


def install(wheel: Path, made: Path, from_index: bool, torch_index: str | None) -> Path:
    """Make a fresh environment with the wheel and its dependencies; return its folder of programs.

    Raises:
        WheelError: a dependency is missing, or has another version than what is declared.
    """
    folder = made / "environment"
    if from_index:
        run([sys.executable, "-m", "venv", "--without-pip", str(folder)], where=made)
        programs, index = folder / "bin", []
    else:
        try:
            programs, index = make_linked_environment(folder, wheel, EXTRAS), ["--no-index"]
        except DependencyError as error:
            raise WheelError(str(error)) from None
    pip = [sys.executable, *PIP, "--python", str(programs / "python")]
    install = [*pip, "install", *index, "--no-compile", "--constraint", str(ROOT / "constraints.txt")]
    if from_index:
        # torch alone first, as the Makefile does: later requests find it and do not fetch the build with CUDA.
        run([*install, "--no-deps", "torch", *(["--extra-index-url", torch_index] if torch_index else [])], where=made)
    run([*install, f"{wheel}[{','.join(EXTRAS)}]"], where=made)
    run([*pip, "check"], where=made)
    return programs


def without_network() -> list[str]:
    """What to put before a command so that it has no network; empty where the system does not allow it."""
    words = ["unshare", "--user", "--map-root-user", "--net"]
    if shutil.which(words[0]) is None:
        return []
    return [] if subprocess.run([*words, "true"], capture_output=True, check=False).returncode else words


def use(programs: Path, made: Path) -> None:
    """Run what a person would run first.

    Raises:
        WheelError: one of them does not do what it should.
    """
    where, home = made / "work", made / "home"
    where.mkdir()
    home.mkdir()
    # Nothing of this shell's environment, such as PYTHONPATH or a home with models; proxies where nobody listens.
    nowhere = "http://127.0.0.1:9"
    environment = {
        "PATH": os.defpath, "HOME": str(home), "HF_HUB_OFFLINE": "1", "http_proxy": nowhere, "https_proxy": nowhere,
    }  # fmt: skip
    prefix = without_network()

    def gemma4vec(*words: str, code: int = 0) -> str:
        command = [*prefix, str(programs / "gemma4vec"), *words]
        return run(command, where=where, environment=environment, code=code)

    python = [*prefix, str(programs / "python"), "-c"]
    program = "import gemma4vec, pathlib; print(gemma4vec.__version__, pathlib.Path(gemma4vec.__file__).parent)"
    version, package = run([*python, program], where=where, environment=environment).split(maxsplit=1)
    expect(package.startswith(str(programs.parent)), f"gemma4vec is imported from {package.strip()}")
    expect((Path(package.strip()) / "py.typed").is_file(), "py.typed is not installed")
    expect(gemma4vec("--version").strip() == version, "--version differs from the package's __version__")

    # The recipe's own data is the Python code of this environment, which takes a minute to read.
    rows = [
        {
            "query": f"find file {n}",
            "pos": [f"def open_{n}(): ..."],
            "neg": [f"def sort_{n}_{k}(): ..." for k in range(4)],
        }
        for n in range(64)
    ]
    (where / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = "stages.0.data=[{name: rows, source: jsonl, path: rows.jsonl}]"
    base = where / "base"
    # The bundled base is unpacked for half a minute; what is asked here is whether the package is whole.
    helpers = {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests" / "helpers" / "models")])}
    program = "import sys; from pathlib import Path; from tiny_model import write_tiny; write_tiny(Path(sys.argv[1]))"
    run([sys.executable, "-c", program, str(base)], where=where, environment=os.environ | helpers)
    # Layers are measured at these sizes.
    sizes = ["batch.rows=4", "layout.tokens_per_forward=512", "layout.row_tokens=256", "layout.compile=false"]
    small = [f"model.base={base}", "model.max_tokens=64", data, *(f"stages.0.{size}" for size in sizes)]
    plan = json.loads(gemma4vec("train", RECIPE, *small, "--dry-run", "--json"))
    expect(plan["recipe"] == RECIPE and plan["parameters"]["trainable"] > 0, f"the dry run of {RECIPE} says {plan}")
    # As issued, the recipe wants a base from the hub, which is out of reach here: one line, which names the way out.
    refused = subprocess.run(
        [*prefix, str(programs / "gemma4vec"), "train", RECIPE, "--dry-run"],
        cwd=where, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    line = refused.stderr.strip().splitlines()[-1:] or [""]
    expect(refused.returncode == 2 and NO_BASE in line[0], f"the dry run without its base ends with: {line[0]!r}")

    for suite in ("cranfield", "cosqa", "dbpedia_entity_5k"):
        (where / "suites" / suite).mkdir(parents=True)
    cells = json.loads(gemma4vec("matrix", PLAN, "--set", "variables.suites=suites", "--dry-run", "--json"))
    expect(len(cells["variants"]) == PLAN_RECIPES and cells["count"] > PLAN_RECIPES, f"the plan {PLAN} has {cells}")


def check_types(programs: Path, made: Path) -> None:
    """A type checker in another environment sees the package's types: it would complain without py.typed."""
    program = "import gemma4vec; reveal_type(gemma4vec.__version__)"
    # The package's root alone: its rooms were checked in the checkout, and with torch they take minutes.
    settings = made / "mypy.ini"
    settings.write_text("[mypy]\nfollow_imports = skip\n[mypy-gemma4vec]\nfollow_imports = normal\n", encoding="utf-8")
    words = ["-m", "mypy", "--python-executable", str(programs / "python"), "--cache-dir", str(made / "mypy")]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    told = run(
        [sys.executable, *words, "--config-file", str(settings), "-c", program], where=made / "work",
        environment=environment,
    )  # fmt: skip
    expect('Revealed type is "builtins.str"' in told or 'Revealed type is "str"' in told, f"mypy says {told.strip()}")


def expect(right: bool, otherwise: str) -> None:
    if not right:
        raise WheelError(otherwise)


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the wheel, install it elsewhere and use it there.")
    parser.add_argument(
        "--from-index", action="store_true", help="install the dependencies, instead of linking those that are here"
    )
    parser.add_argument("--torch-index", metavar="URL", help="index of PyTorch's CPU builds")
    parser.add_argument("--keep", action="store_true", help="leave the fresh environment where it is, and name it")
    options = parser.parse_args()
    started = time.monotonic()
    made = Path(tempfile.mkdtemp(prefix="gemma4vec-wheel-"))
    try:
        wheel = build(made)
        programs = install(wheel, made, options.from_index, options.torch_index)
        installed = time.monotonic()
        use(programs, made)
        check_types(programs, made)
    except WheelError as failed:
        print(f"error: wheel: {failed}", file=sys.stderr)
        return 1
    finally:
        if options.keep:
            print(f"left: {made}", file=sys.stderr)
        else:
            shutil.rmtree(made, ignore_errors=True)
    seconds = time.monotonic() - started
    network = "without a network" if without_network() else "with the hub forbidden (this system hides no network)"
    print(
        f"{wheel.name}: installs and works outside the checkout, {network} "
        f"({installed - started:.0f} s to build and install, {seconds - installed + started:.0f} s to use)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
