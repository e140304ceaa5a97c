"""Is training on mined hard negatives better than on random ones, at equal budget?

    python -m benchmarks.quality.mined_negatives DATA --train medquad --suite cosqa --suite scifact --seeds 0 1 2

DATA holds `train/NAME.jsonl.gz` and `retrieval/NAME` (suites in BEIR's layout); or name files and folders by their
paths. First the training rows are cleaned (`data check --clean` against the suites), so that no score is bought by
overlap. Then each kind of negatives gets a file of the same rows with `--negatives` negatives each:

    random    positives of other rows, drawn evenly
    bm25      the best by BM25 (`data mine`)
    bm25-draw drawn from BM25's ranks 1 to 100
    model     the best by --miner, positive-aware (0.95 of the positive's score)

Every kind and seed is trained by the quickstart's recipe, changed as said (base, rows in a batch, steps), each in a
child process, and evaluated on every suite. Only the negatives differ: same rows, order, base, steps. The result has
every score and the paired comparison of each kind with `random`, over queries, of the seeds' mean scores.

What is done stays in `--kept`; the same command goes on where it was stopped. With `--max-documents`, suites are fixed
samples, which are easier than the whole.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shared.record import RESULTS, as_program, say, write_result
from gemma4vec.data.mining.hard_negatives import build_corpus
from gemma4vec.data.rows.rows import Row, read_rows, write_rows
from gemma4vec.data.suites.retrieval import load_suite, write_suite
from gemma4vec.data.suites.sample import sample_suite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.compare import compare
from gemma4vec.evaluation.comparison.compare_seeds import average_runs
from gemma4vec.evaluation.results.result import load_result
from gemma4vec.files import home, sha256_text, write_json
from gemma4vec.machine.file_hashes import file_hash

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "src/gemma4vec/pipeline/quickstart.yaml"
KINDS = ("random", "bm25", "bm25-draw", "model")
DEPENDS_ON: tuple[str, ...] = ("train", "suite", "kinds", "base", "steps", "rows", "negatives", "learning_rate", "most")
DEPENDS_ON += ("max_documents", "miner", "set")


def main() -> int:
    arguments = parse_arguments()
    train = found(arguments.data, arguments.train, "train")
    suites = [found(arguments.data, name, "retrieval") for name in arguments.suite]
    settings = {key: getattr(arguments, key) for key in DEPENDS_ON}
    folder = kept_folder(train, settings, arguments)
    suites = [sampled(suite, folder, arguments.max_documents) for suite in suites]
    files = prepare(train, suites, folder, arguments)
    runs = {
        kind: [train_one(kind, file, seed, suites, folder, arguments) for seed in arguments.seeds]
        for kind, file in files.items()
    }
    outcome = compare_kinds(runs, suites)
    report(outcome)
    settings["seeds"] = arguments.seeds
    write_result("mined_negatives", {"settings": settings, "runs": runs, "suites": outcome}, arguments.results)
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/ and retrieval/")
    parser.add_argument("--train", required=True, help="name below train/, or a file of rows")
    parser.add_argument("--suite", action="append", required=True, help="name below retrieval/, or a folder")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["random", "bm25", "bm25-draw"])
    parser.add_argument("--miner", help="model that mines for the kind `model`: a run, a folder, a hub id")
    parser.add_argument("--base", default="bundled:gemma-3-270m")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rows", type=int, default=16, help="rows in a batch")
    parser.add_argument("--negatives", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--most", type=int, help="train on so many of the rows, evenly spaced")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--max-documents", type=int, help="so many documents of each suite, the judged ones among them")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="further changes of the recipe")
    parser.add_argument("--kept", type=Path, default=home() / "mined-negatives", help="folder of what is done")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    arguments = parser.parse_args()
    if "random" not in arguments.kinds or len(arguments.kinds) < 2:
        parser.error("--kinds: random and at least one other are compared")
    if "model" in arguments.kinds and not arguments.miner:
        parser.error("--kinds model needs --miner")
    return arguments


def found(data: Path, name: str, below: str) -> Path:
    """A file or folder by its path, or by its name below the data folder."""
    for path in (Path(name), data / below / name, data / below / f"{name}.jsonl.gz"):
        if path.exists():
            return path.resolve()
    raise InputError(f"{name}: neither a path nor a name below {data / below}")


def kept_folder(train: Path, settings: dict[str, Any], arguments: argparse.Namespace) -> Path:
    """One for everything that the scores depend on, seeds aside."""
    folder: Path = arguments.kept / sha256_text(json.dumps([settings, file_hash(train)], sort_keys=True))[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def sampled(suite: Path, folder: Path, documents: int | None) -> Path:
    """The suite, or a folder with a fixed sample of it."""
    if documents is None:
        return suite
    out = folder / "suites" / f"{suite.name}-{documents}"
    if not out.is_dir():
        write_suite(out, sample_suite(load_suite(suite), None, documents))
    return out


def prepare(train: Path, suites: list[Path], folder: Path, arguments: argparse.Namespace) -> dict[str, Path]:
    """A file of the same clean rows for each kind."""
    files = {kind: folder / f"{kind}.jsonl" for kind in arguments.kinds}
    if (folder / "prepared").is_file():
        return files
    shutil.rmtree(folder / "clean", ignore_errors=True)  # of a call that was stopped here
    against = [word for suite in suites for word in ("--against", str(suite))]
    checked = json.loads(gemma4vec("data", "check", str(train), *against, "--clean", str(folder / "clean"), "--json"))
    (kept,) = checked["clean"]["rows"].values()
    say(f"{kept:,} of {checked['sources'][0]['rows']:,} rows are left without what the suites have")
    (file,) = (folder / "clean").glob("*.jsonl.gz")
    rows = read_rows(file).rows
    if arguments.most and arguments.most < len(rows):
        rows = [rows[place] for place in np.linspace(0, len(rows) - 1, arguments.most).astype(int).tolist()]
    plain = folder / "rows.jsonl"
    write_rows(plain, [Row(row.query, row.pos, [], row.task, row.group) for row in rows])
    more = str(arguments.negatives)
    for kind, out in files.items():
        if kind == "random":
            write_rows(out, with_random(read_rows(plain).rows, arguments.negatives))
            continue
        words = ["data", "mine", str(plain), "--out", str(out), "-n", more]
        words += ["--choose", "draw"] if kind == "bm25-draw" else []
        words += ["--model", arguments.miner] if kind == "model" else []
        gemma4vec(*words, "--json")
    same_rows(files, arguments.negatives)
    (folder / "prepared").touch()
    return files


def with_random(rows: list[Row], count: int) -> list[Row]:
    """Negatives drawn evenly from the positives of all rows, never the row's own."""
    corpus = build_corpus(rows)
    documents = corpus.documents
    generator = np.random.default_rng(0)
    made = []
    for row in rows:
        own = {document.text for document in row.pos}
        drawn = generator.choice(len(documents), min(len(documents), count + len(own) + 8), replace=False).tolist()
        others = [documents[place] for place in drawn if documents[place].text not in own]
        made.append(Row(row.query, row.pos, others[:count], row.task, row.group))
    return made


def same_rows(files: dict[str, Path], count: int) -> None:
    """Keep the rows that have enough negatives of every kind: all kinds train on the same ones."""
    every = {kind: read_rows(file).rows for kind, file in files.items()}
    enough = [all(len(row.neg) >= count for row in rows) for rows in zip(*every.values(), strict=True)]
    for kind, rows in every.items():
        write_rows(files[kind], [row for row, kept in zip(rows, enough, strict=True) if kept])
    say(f"{sum(enough):,} of {len(enough):,} rows have {count} negatives of every kind")


def train_one(
    kind: str, file: Path, seed: int, suites: list[Path], folder: Path, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Train one kind with one seed, and evaluate it."""
    done = folder / f"{kind}-{seed}.json"
    if done.is_file():
        found: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        return found
    source = json.dumps([{"name": "rows", "source": "jsonl", "path": str(file)}])
    words = [
        str(QUICKSTART),
        f"name={kind}",
        f"model.base={arguments.base}",
        "model.prompts=retrieval",
        f"stages.0.data={source}",
        f"stages.0.batch.rows={arguments.rows}",
        "stages.0.batch.group_rows=1",
        f"stages.0.task.hard_negatives={arguments.negatives}",
        "stages.0.task.terms=[{kind: nce, hardness: 0}]",
        f"stages.0.optimizer.learning_rate={arguments.learning_rate}",
        f"stages.0.budget={{steps: {arguments.steps}}}",
        "stages.0.evaluation={checkpoint_seconds: 3600}",
        *arguments.set,
    ]
    say(f"{kind}, seed {seed}: training")
    made = json.loads(gemma4vec("train", *words, "--seed", str(seed), "--out", str(folder / "runs"), "--json"))
    scores = {}
    for suite in suites:
        result = json.loads(gemma4vec("eval", made["run"], "--suite", str(suite), "--json"))
        scores[suite.name] = {"ndcg@10": result["ndcg@10"], "folder": result["folder"]}
        say(f"{kind}, seed {seed}: {suite.name} nDCG@10 {result['ndcg@10']:.4f}")
    found = {"seed": seed, "tokens": made["tokens"], "seconds": made["seconds"], "scores": scores}
    shutil.rmtree(Path(made["run"]) / "model")  # its scores are what is compared
    shutil.rmtree(Path(made["run"]) / "checkpoints")
    write_json(done, found)
    return found


def compare_kinds(runs: dict[str, list[dict[str, Any]]], suites: list[Path]) -> dict[str, Any]:
    """Each kind minus random on each suite."""
    outcome: dict[str, Any] = {}
    for suite in suites:
        sides = {
            kind: average_runs([load_result(Path(one["scores"][suite.name]["folder"])) for one in made])
            for kind, made in runs.items()
        }
        outcome[suite.name] = {
            "ndcg@10": {kind: side.mean["ndcg@10"] for kind, side in sides.items()},
            "minus_random": {
                kind: comparison(side, sides["random"]) for kind, side in sides.items() if kind != "random"
            },
        }
    for made in runs.values():  # where a temporary folder was says nothing
        for one in made:
            one["scores"] = {suite: scores["ndcg@10"] for suite, scores in one["scores"].items()}
    return outcome


def comparison(side: Any, random: Any) -> dict[str, Any]:
    """A paired comparison over queries of the seeds' mean scores."""
    found = compare(side, random, "ndcg@10", allow_different_settings=True)
    return {
        "difference": found.difference,
        "interval": [found.interval.low, found.interval.high],
        "p": found.test.p,
        "queries": found.test.n,
        "smallest_detectable": found.smallest_detectable,
    }


def report(outcome: dict[str, Any]) -> None:
    """A line for each suite and kind."""
    for suite, one in outcome.items():
        say(f"{suite}: " + ", ".join(f"{kind} {score:.4f}" for kind, score in one["ndcg@10"].items()))
        for kind, minus in one["minus_random"].items():
            low, high = minus["interval"]
            say(f"  {kind} - random: {minus['difference']:+.4f} ({low:+.4f} to {high:+.4f}), p = {minus['p']:.4f}")


def gemma4vec(*words: str) -> str:
    """What a command of ours prints; its remarks go where ours go."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-m", "gemma4vec", *words], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


if __name__ == "__main__":
    as_program(main)
