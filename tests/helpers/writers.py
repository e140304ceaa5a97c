"""A process that writes to the ledger and says what it wrote: `python writers.py HOME NAME COUNT`."""

import sys
from pathlib import Path

from gemma4vec.ledger.journal import Record
from gemma4vec.ledger.ledger import add

if __name__ == "__main__":
    home, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    for number in range(count):
        add(home, [Record(f"{name}-{number}", "note", "2026-01-01T00:00:00.000000+00:00", {"text": "x" * 500})])
        print(f"{name}-{number}", flush=True)
