"""The looks in the ledger, as tests compare them."""

import json

from gemma4vec.files import home
from gemma4vec.ledger.ledger import open_ledger


def recorded_looks() -> list[tuple[str, str, str, list[str]]]:
    """(command, suite, model's fingerprint, metrics) of each look, in order; `eval` records no command."""
    with open_ledger(home()) as ledger:
        rows = ledger.rows("SELECT body FROM records WHERE kind = 'look' ORDER BY seq")
    bodies = [json.loads(row["body"]) for row in rows]
    return [(one.get("by", ""), one["suite"], one["model_fingerprint"], one["metrics"]) for one in bodies]
