"""The table of kept results in docs/results.md, from the files in benchmarks/results.

python tools/results_table.py            write the table
python tools/results_table.py --check    exit with 1 if it is out of date, or if a result has no claim on the page
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results.md"
RESULTS = ROOT / "benchmarks" / "results"
MARK = "<!-- table: tools/results_table.py -->\n"
_MACHINE = re.compile(r"-(amd|intel|nvidia|apple|arm)-.*$")


def name_of(file: Path) -> str:
    """A result's name without the machine: how the page calls it."""
    return _MACHINE.sub("", file.stem)


def table() -> str:
    """A row for each file: command, commit, day and machine."""
    rows = [_row(file) for file in sorted(RESULTS.glob("*.json"))]
    return "\n".join(["| result | command | commit | day | machine |", "|---|---|---|---|---|", *rows]) + "\n"


def _row(file: Path) -> str:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    page = ", with a page" if file.with_suffix(".md").is_file() else ""
    machine = found.get("machine", {})
    gpus = machine.get("gpus") or []
    where = f"{machine['cpu']}, {machine['cores']} cores" if machine else "named in the file's page"
    cells = [
        f"`{name_of(file)}`{page}",
        f"`{' '.join(found['command'])}`" if "command" in found else "`gemma4vec matrix recipes_270m`",
        found.get("git", {}).get("commit", "")[:8],
        found.get("created", "")[:10],
        where + "".join(f", {gpu}" for gpu in gpus),
    ]
    return "| " + " | ".join(cells) + " |"


def page() -> str:
    """The page with the table as it is to be."""
    before, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    return before + mark + "\n" + table()


def unclaimed() -> list[str]:
    """Results that no line above the table names."""
    claims = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    return [name for name in map(name_of, sorted(RESULTS.glob("*.json"))) if f"`{name}`" not in claims]


def main(words: list[str]) -> int:
    """Write or check; the exit code."""
    wanted = page()
    if "--check" not in words:
        PAGE.write_text(wanted, encoding="utf-8")
        return 0
    for name in (missing := unclaimed()):
        print(f"docs/results.md: no claim names {name}; add a line, or remove the result", file=sys.stderr)
    if stale := wanted != PAGE.read_text(encoding="utf-8"):
        print("docs/results.md: run python tools/results_table.py", file=sys.stderr)
    return int(stale or bool(missing))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
