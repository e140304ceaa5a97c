"""Does a folder of documents alone make a model that finds better than BM25 and all-MiniLM-L6-v2?

    python -m benchmarks.quality.own_documents DATA [--collections scifact cranfield] [--minutes 5] [--seeds 0 1]

DATA holds `retrieval/NAME`: collections in BEIR's layout, with queries that people wrote. Each becomes a folder of
Markdown files, one a document, and a file of its queries and answers. `gemma4vec quickstart --folder ... --queries ...`
then trains on the documents alone, never on the queries, and scores BM25, the untrained base, all-MiniLM-L6-v2 and the
result on the queries. A document that begins `Question: ... Answer:` has its question as its heading.

The paired tests are of nDCG@10 over queries, of the seeds' mean scores where there are several. Long documents are cut
into sections and found at the rank of their best section, by all models alike; `whole` is BM25 on uncut documents.

`--queries` and `--documents` make the collections smaller, which makes them easier and leaves less to train on. What is
done stays in `--kept`, and the same command goes on where it was stopped.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.shared.record import RESULTS, as_program, say, write_result
from gemma4vec.data.suites.retrieval import RetrievalSuite, load_suite
from gemma4vec.data.suites.sample import sample_suite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.compare import compare
from gemma4vec.evaluation.comparison.compare_seeds import average_runs
from gemma4vec.evaluation.results.result import Result, load_result
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.files import home, sha256_text, write_json
from gemma4vec.ledger.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
COLLECTIONS = ("medquad_liveqa", "scifact", "cranfield")
OTHERS = ("bm25", "untrained", "public")
DEPENDS_ON = ("base", "minutes", "queries", "documents", "set")
_FAQ = re.compile(r"\AQuestion:\s*(.+?)\s+Answer:\s*(.+)\Z", re.S)
_MARKS = re.compile(r"([\\`*_{}\[\]<>#|~&$])")


def main() -> int:
    arguments = parse_arguments()
    settings = {key: getattr(arguments, key) for key in DEPENDS_ON}
    if arguments.written_questions:  # what was kept without any keeps its name
        settings["written_questions"] = arguments.written_questions
    measured = {}
    for name in arguments.collections:
        source = arguments.data / "retrieval" / name
        suite = sampled(load_suite(source), arguments)
        kept = arguments.kept / f"{name}-{sha256_text(json.dumps(settings), suite.fingerprint)[:16]}"
        write_folder(suite, kept)
        runs = [train(kept, seed, arguments) for seed in arguments.seeds]
        measured[name] = outcome(runs) | {"whole": whole(suite)}
        report(name, measured[name])
    write_result("own_documents", {"settings": settings, "collections": measured}, arguments.results)
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with retrieval/")
    parser.add_argument("--collections", nargs="+", default=list(COLLECTIONS), help="names below retrieval/")
    parser.add_argument("--minutes", type=float, default=5.0, help="of training on each")
    parser.add_argument("--base", default="bundled:gemma-3-270m")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--queries", type=int, help="most queries of each collection")
    parser.add_argument("--documents", type=int, help="most documents of each collection, those that answer among them")
    parser.add_argument(
        "--written-questions", type=int, default=0, help="sections for which the base writes a question to train on"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the recipe")
    parser.add_argument("--kept", type=Path, default=home() / "own-documents", help="folder of what is done")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    return parser.parse_args()


def sampled(suite: RetrievalSuite, arguments: argparse.Namespace) -> RetrievalSuite:
    """The collection, or a smaller one with the documents that answer its queries."""
    sample = sample_suite(suite, arguments.queries, arguments.documents, keep="relevant")
    return replace(sample, name=suite.name)


def write_folder(suite: RetrievalSuite, kept: Path) -> None:
    """Write a file for each document with text, and the queries with their answers' files and grades."""
    folder, queries = kept / suite.name, kept / "queries.tsv"
    if queries.is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    for key, (text, title) in zip(suite.corpus_ids, suite.corpus, strict=True):
        name = f"{re.sub(r'[^A-Za-z0-9._-]+', '-', key)}.md"
        if not text.strip() or name in files.values():
            continue
        faq = _FAQ.match(text) if not title else None
        heading, body = (faq[1], faq[2]) if faq else (title, text)
        lines = [f"# {plain(heading)}", ""] if heading else []
        (folder / name).write_text("\n".join([*lines, _MARKS.sub(r"\\\1", body), ""]), encoding="utf-8")
        files[key] = name
    rows = [
        (plain(query, escaped=False), files[document], grade)
        for key, query in zip(suite.query_ids, suite.queries, strict=True)
        for document, grade in suite.qrels[key].items()
        if document in files
    ]
    queries.write_text("".join(f"{query}\t{file}\t{grade}\n" for query, file, grade in rows), encoding="utf-8")


def plain(text: str, *, escaped: bool = True) -> str:
    """The text in one line; without marks of Markdown if it is written into a file."""
    line = " ".join(text.split())
    return _MARKS.sub(r"\\\1", line) if escaped else line


def train(kept: Path, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the quickstart on a folder, or read what it gave before."""
    done = kept / f"seed-{seed}.json"
    if done.is_file():
        found: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        return found
    (folder,) = (path for path in kept.iterdir() if path.is_dir() and path.name not in ("runs", "home"))
    words = ["quickstart", "--json", "--folder", str(folder), "--queries", str(kept / "queries.tsv")]
    words += ["--base", arguments.base, "--minutes", str(arguments.minutes), "--seed", str(seed)]
    words += ["--questions", str(arguments.written_questions)] if arguments.written_questions else []
    words += [word for change in arguments.set for word in ("--set", change)]
    say(f"{folder.name}, seed {seed}: {arguments.minutes:g} minutes of training")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "GEMMA4VEC_HOME": str(kept / "home")}
    run = subprocess.run(
        [sys.executable, "-m", "gemma4vec", *words], env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if run.returncode:
        raise InputError(f"{folder.name}: the quickstart ended with exit code {run.returncode}")
    made = json.loads(run.stdout)
    training = made["training"] or {}
    found = {
        "seed": seed,
        "run": made["run"],
        "suite": made["suite"],
        "test": made["test"],
        "seconds": made["seconds"],
        "training": {key: training[key] for key in ("step", "steps", "rows", "tokens", "seconds") if key in training},
    }
    write_json(done, found)
    return found


def outcome(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Scores of every model, and the trained one's paired differences from the others."""
    results: dict[str, list[Result]] = {}
    for run in runs:
        folder = RunFolder.open(Path(run["run"]))
        for model in (*OTHERS, "trained"):
            place = folder.evaluation(model, run["suite"])
            if (place / "metrics.json").is_file():
                results.setdefault(model, []).append(load_result(place))
    sides = {model: average_runs(found) for model, found in results.items()}
    intervals = {model: side.interval("ndcg@10") for model, side in sides.items()}
    return {
        "test": runs[0]["test"],
        "training": [run["training"] | {"seed": run["seed"], "quickstart_seconds": run["seconds"]} for run in runs],
        "ndcg@10": {
            model: {"mean": side.mean["ndcg@10"], "interval": [intervals[model].low, intervals[model].high]}
            for model, side in sides.items()
        },
        "trained_minus": {model: difference(sides["trained"], sides[model]) for model in OTHERS if model in sides},
    }


def difference(trained: Result, other: Result) -> dict[str, Any]:
    """The paired difference; p is not corrected."""
    found = compare(trained, other, "ndcg@10", allow_different_settings=True)
    return {
        "difference": found.difference,
        "interval": [found.interval.low, found.interval.high],
        "p": found.test.p,
        "queries": found.test.n,
        "smallest_detectable": found.smallest_detectable,
    }


def whole(suite: RetrievalSuite) -> float:
    """BM25 on the documents as they are, all of them: the figure that others report."""
    return evaluate(Bm25Model(), suite).mean["ndcg@10"]


def report(name: str, found: dict[str, Any]) -> None:
    """Lines for a person who waits."""
    say(f"{name}: {found['test']}; BM25 on whole documents {found['whole']:.4f}")
    for model, score in found["ndcg@10"].items():
        say(f"  {model}: {score['mean']:.4f} ({score['interval'][0]:.4f} to {score['interval'][1]:.4f})")
    for model, minus in found["trained_minus"].items():
        low, high = minus["interval"]
        say(f"  trained - {model}: {minus['difference']:+.4f} ({low:+.4f} to {high:+.4f}), p = {minus['p']:.4f}")


if __name__ == "__main__":
    as_program(main)
