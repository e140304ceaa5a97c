"""What every benchmark writes down: the machine, the versions, the command, the raw numbers and their summary."""

import re
import statistics
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gemma4vec.errors import Gemma4VecError
from gemma4vec.files import write_json
from gemma4vec.ledger.environment import environment
from gemma4vec.machine.describe import describe_machine

RESULTS = Path(__file__).parents[1] / "results"


def say(text: str) -> None:
    """A line for the person who waits."""
    print(text, file=sys.stderr, flush=True)


def as_program(main: Callable[[], int | None]) -> None:
    """A benchmark as a program: what is wrong is one line, and the exit code says whether it went well."""
    try:
        code = main()
    except Gemma4VecError as error:
        say(f"error: {error}")
        code = error.exit_code
    sys.exit(code)


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median, quartiles and range of repeats, and the repeats themselves in the order in which they were measured."""
    if not values:
        raise ValueError("no repeats were measured")
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {
        "median": statistics.median(values),
        "quartiles": [quartiles[0], quartiles[2]],
        "range": [min(values), max(values)],
        "n": len(values),
        "values": list(values),
    }


def shown(found: dict[str, Any], digits: int = 0) -> str:
    """`median [low to high, n=5]` for a person."""
    low, high = found["range"]
    return f"{found['median']:,.{digits}f} [{low:,.{digits}f} to {high:,.{digits}f}, n={found['n']}]"


def write_result(name: str, measured: dict[str, Any], folder: Path = RESULTS, *, quiet: bool = False) -> Path:
    """Write `folder/<name>-<machine slug>.json`; what an earlier run on such a machine left there is replaced.

    Raises:
        WorkError: the folder cannot be written.
    """
    machine = describe_machine()
    file = folder / f"{name}-{machine_slug(machine)}.json"
    around = environment()
    write_json(
        file,
        {
            "benchmark": name,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": ["python", "-m", program(), *map(public_argument, sys.argv[1:])],
            "machine": machine,
            "versions": around["versions"],
            "git": around["git"],
            **measured,
        },
    )
    if not quiet:
        say(f"written: {file}")
    return file


def program() -> str:
    """The module that was started: `benchmarks.speed.roofline`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name.removesuffix(".__main__") if spec is not None else Path(sys.argv[0]).stem


def machine_slug(machine: dict[str, Any]) -> str:
    """A file name's part for a machine: its GPU, or its processor and cores."""
    names = [gpu["name"] for gpu in machine["gpus"]]
    words = names[0] if names else f"{machine['cpu']} {machine['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def public_argument(argument: str) -> str:
    """An argument without the folders of this machine: of an absolute path only the name is kept."""
    option, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
    if Path(value).is_absolute():
        value = f".../{Path(value).name}"
    return f"{option}{equals}{value}"
