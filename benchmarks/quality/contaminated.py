"""Does `gemma4vec inspect` show queries that a model was trained on as a slice of their own?

    python -m benchmarks.quality.contaminated DATA --out DIR [--suite medquad_liveqa] [--train medquad] [--leak]

DATA holds `retrieval/NAME` (a suite in BEIR's layout) and `train/NAME.jsonl.gz`. Of the training rows, those are taken
that have a right document of one of the suite's queries, a row for each such document. With `--leak` the rows are half
of the suite's queries with their right documents in place of that: the worst case. The control's are as many random
rows that touch no text of the suite. Both train the same small base for the same steps. Then the commands are asked:

    inspect TOUCHED --against CONTROL    the gap of touched queries to the others, of the gain over the control
    inspect TOUCHED --against bm25       the same beside BM25, which was trained on nothing

The difference from the control has no part that comes from touched queries being easier. The result has figures and
names, no text. What is done stays in DIR, and the same command goes on where it was stopped.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.shared.commands import Done, Found, command, small_recipe
from benchmarks.shared.record import RESULTS, as_program, say, write_result
from gemma4vec.data.quality.contamination import ContaminationIndex, Hit
from gemma4vec.data.rows.rows import Row, read_rows, write_rows
from gemma4vec.data.suites.retrieval import RetrievalSuite, load_suite
from gemma4vec.errors import InputError
from gemma4vec.files import write_json

PLACES = ("data", "out", "results")  # arguments that no figure depends on
ARMS = ("touched", "control")


def main() -> int:
    arguments = parse_arguments()
    os.environ["GEMMA4VEC_HOME"] = str(arguments.out.absolute() / "home")
    settings = {key: value for key, value in vars(arguments).items() if key not in PLACES}
    done = Done(arguments.out / "contaminated.json", settings)
    data = done.step("data", lambda: prepare(arguments))
    runs = {arm: done.step(arm, lambda arm=arm: train_one(arm, arguments)) for arm in ARMS}
    seen = {
        "control": done.step("beside-control", lambda: inspect(runs["touched"], runs["control"]["run"], arguments)),
        "bm25": done.step("beside-bm25", lambda: inspect(runs["touched"], "bm25", arguments)),
    }
    trained = {arm: {key: run[key] for key in ("run_id", "tokens", "seconds")} for arm, run in runs.items()}
    measured = {"settings": settings, "data": data, "runs": trained, "beside": seen}
    write_result("contaminated-leak" if arguments.leak else "contaminated", measured, arguments.results)
    return report(seen)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/ and retrieval/")
    parser.add_argument("--out", type=Path, required=True, help="folder of what is done")
    parser.add_argument("--suite", default="medquad_liveqa", help="name below retrieval/")
    parser.add_argument("--train", default="medquad", help="name below train/")
    parser.add_argument("--leak", action="store_true", help="train on half of the suite's own queries")
    parser.add_argument("--base", default="bundled:gemma-3-270m")
    parser.add_argument("--layers", type=int, default=2, help="the base's first layers alone")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rows", type=int, default=32, help="rows in a batch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    return parser.parse_args()


def prepare(arguments: argparse.Namespace) -> Found:
    """Write the rows of both arms; how many rows, documents and queries there are."""
    suite = load_suite(suite_folder(arguments))
    rows = read_rows(arguments.data / "train" / f"{arguments.train}.jsonl.gz").rows
    hits = list(ContaminationIndex([suite.texts()]).hits(rows))
    trained = leaked(suite, arguments.seed) if arguments.leak else touching(suite, hits, rows)
    if not trained:
        raise InputError(f"no row of {arguments.train} has a right document of {suite.name}")
    found = {hit.row - 1 for hit in hits}
    clean = [row for row in range(len(rows)) if row not in found]
    drawn = np.random.default_rng(arguments.seed).choice(len(clean), len(trained), replace=False)
    control = [plain(rows[clean[place]]) for place in sorted(drawn.tolist())]
    for arm, made in zip(ARMS, (trained, control), strict=True):
        write_rows(rows_file(arm, arguments), made)
    return {
        "rows": len(rows),
        "touching_rows": len(found),
        "trained_rows": len(trained),
        "queries": len(suite.queries),
        "documents": len(suite.corpus),
    }


def touching(suite: RetrievalSuite, hits: Sequence[Hit], rows: Sequence[Row]) -> list[Row]:
    """A row for each right document that training rows have."""
    right = {key for judged in suite.qrels.values() for key, grade in judged.items() if grade >= 1}
    return [plain(rows[place]) for place in sorted(one_row_each(hits, right).values())]


def leaked(suite: RetrievalSuite, seed: int) -> list[Row]:
    """A random half of the suite's queries, each with all of its right documents."""
    corpus = dict(zip(suite.corpus_ids, suite.corpus, strict=True))
    drawn = np.random.default_rng(seed).permutation(len(suite.queries))[: len(suite.queries) // 2]
    made = []
    for place in sorted(drawn.tolist()):
        judged = suite.qrels[suite.query_ids[place]]
        right = [corpus[key] for key, grade in sorted(judged.items()) if grade >= 1 and key in corpus]
        if right:
            made.append(Row(suite.queries[place], right))
    return made


def one_row_each(hits: Sequence[Hit], right: set[str]) -> dict[str, int]:
    """Right document -> place of the first row whose positive has it, no row twice."""
    chosen: dict[str, int] = {}
    taken: set[int] = set()
    for hit in hits:
        key, row = hit.item.id, hit.row - 1
        usable = hit.field == "positive" and hit.item.side == "document" and key in right
        if usable and key not in chosen and row not in taken:
            chosen[key] = row
            taken.add(row)
    return chosen


def plain(row: Row) -> Row:
    """The row without negatives and scores."""
    return Row(row.query, row.pos)


def rows_file(arm: str, arguments: argparse.Namespace) -> Path:
    folder: Path = arguments.out.absolute()
    return folder / f"{arm}.jsonl"


def suite_folder(arguments: argparse.Namespace) -> Path:
    folder: Path = arguments.data / "retrieval" / arguments.suite
    return folder.resolve()


def train_one(arm: str, arguments: argparse.Namespace) -> Found:
    """A run of one arm; one that was stopped goes on (`--job`)."""
    recipe = arguments.out / f"{arm}.json"  # JSON is YAML
    data = [{"name": arm, "path": str(rows_file(arm, arguments))}]
    write_json(recipe, {**small_recipe(arm, data, arguments, max_tokens=48), "seed": arguments.seed})
    return command("train", str(recipe), "--job", arm)


def inspect(run: Found, against: str, arguments: argparse.Namespace) -> Found:
    """What an inspection says of touched queries, and its slices."""
    out = arguments.out.absolute() / "inspect" / Path(against).name / arguments.suite
    words = ["inspect", run["run"], "--suite", str(suite_folder(arguments)), "--against", against, "--out", str(out)]
    found = command(*words)
    keys = ("rule", "view", "n", "n_sealed", "gap", "p_max_t", "tried", "can_show")
    return {
        "in_training": found["in_training"],
        "discovery_means": dict(zip(("model", "against"), found["discovery_means"].values(), strict=False)),
        "slices": [{key: one[key] for key in keys} for one in found["slices"]],
    }


def report(seen: dict[str, Found]) -> int:
    """A line for each comparison; 1 where the interval beside the control holds 0."""
    for name, one in seen.items():
        touched = one["in_training"]
        for view in touched["views"][:1]:
            say(
                f"beside {name}: {touched['queries']} queries touched ({touched['open']} open), gap {view['gap']:+.3f} "
                f"({view['low']:+.3f} to {view['high']:+.3f}), p {view['p']:.4f}, can show {view['can_show']:.3f}"
            )
    views = seen["control"]["in_training"]["views"]
    return int(not views or views[0]["low"] <= 0.0)


if __name__ == "__main__":
    as_program(main)
