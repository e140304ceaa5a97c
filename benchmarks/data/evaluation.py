"""What does a full evaluation cost beside plain encoding, and are the scores those that are expected?

    python -m benchmarks.data.evaluation DIR [--model MODEL] [--suites NAME...] [--expected README.md]

DIR holds suites in BEIR's layout. Three things are measured, each on every suite:

- BM25 from files to scores; fails where all take more than two minutes.
- The model, from loaded suites to written results, every text encoded (no vectors from disk).
- Plain sentence-transformers: `encode` of the same texts in the same dtype with the same limit, nothing else. The
  first must not take more than 1.1 times that.

With `--expected`, a table whose rows begin `| NAME ... |` and end with the scores of BM25 and of the model (nDCG@10, as
in a README), the scores must be those to .002. Exit code 1 where something fails.
"""

import argparse
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.shared.record import RESULTS, as_program, say, write_result
from gemma4vec.data.suites.retrieval import RetrievalSuite, load_suite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.evaluation.scoring.evaluate import evaluate

BM25_SECONDS = 120.0
MORE_THAN_ENCODING = 1.10
SCORE_DIFFERENCE = 0.002


def main() -> int:
    arguments = parse_arguments()
    folders = suite_folders(arguments.folder, arguments.suites)
    expected = read_expected(arguments.expected) if arguments.expected else {}
    measured: dict[str, Any] = {"suites": [folder.name for folder in folders], "bm25": bm25(folders)}
    if arguments.model != "none":
        measured["model"] = model_against_plain(arguments.model, arguments.dtype, folders)
    failures = violated(measured, expected, len(folders))
    measured |= {"expected": expected, "failures": failures}
    write_result("evaluation", measured, arguments.results)
    report(measured)
    for failure in failures:
        print(f"FAILED  {failure}")
    return 1 if failures else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of suites in BEIR layout")
    parser.add_argument("--model", default="bundled:all-minilm-l6-v2", help="none: BM25 alone")
    parser.add_argument("--dtype", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--suites", nargs="+", help="these only")
    parser.add_argument("--expected", type=Path, help="file with a table of expected scores")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    return parser.parse_args()


def suite_folders(folder: Path, names: list[str] | None) -> list[Path]:
    """The suites' folders by name."""
    found = [one for one in sorted(folder.glob("*/")) if (one / "qrels" / "test.tsv").is_file()]
    chosen = [one for one in found if names is None or one.name in names]
    missing = sorted(set(names or []) - {one.name for one in chosen})
    if missing or not chosen:
        raise InputError(f"{folder}: no suite {', '.join(missing) or 'at all'}; it has {[one.name for one in found]}")
    return chosen


def bm25(folders: list[Path]) -> dict[str, Any]:
    """Seconds from files to written results, and scores."""
    scores = {}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        for folder in folders:
            scores[folder.name] = evaluate(Bm25Model(), load_suite(folder), Path(out) / folder.name).mean["ndcg@10"]
    seconds = time.perf_counter() - started
    say(f"bm25: {seconds:.1f} s for {len(folders)} suites")
    return {"seconds": seconds, "ndcg@10": scores}


def model_against_plain(name: str, dtype: str, folders: list[Path]) -> dict[str, Any]:
    """Our evaluation and plain encoding, suite by suite in turn, so that a neighbour's load hits both alike."""
    from gemma4vec.model.inference.embedder import Embedder, SentenceTransformerEmbedder

    model = Embedder.load(name, dtype=dtype)
    if not isinstance(model, SentenceTransformerEmbedder):
        raise InputError(f"{name} is not run by sentence-transformers; the comparison is with its plain encode")
    model.encode_query(["a first text loads what is loaded at first use"])
    rows = []
    with tempfile.TemporaryDirectory() as out:
        for number, folder in enumerate(folders):
            suite = load_suite(folder)
            plain = plain_seconds(model, suite) if number % 2 else None
            started = time.perf_counter()
            result = evaluate(model, suite, Path(out) / folder.name)
            ours = time.perf_counter() - started
            plain = plain if plain is not None else plain_seconds(model, suite)
            rows.append({"suite": folder.name, "ours": ours, "plain": plain, "ndcg@10": result.mean["ndcg@10"]})
            say(f"{folder.name}: {ours:.1f} s, plain encode {plain:.1f} s, nDCG@10 {result.mean['ndcg@10']:.4f}")
    ours, plain = (sum(row[side] for row in rows) for side in ("ours", "plain"))
    return {
        "name": name,
        "settings": model.describe(),
        "rows": rows,
        "ours": ours,
        "plain": plain,
        "ratio": ours / plain,
    }


def plain_seconds(model: Any, suite: RetrievalSuite) -> float:
    """Seconds of the library's own `encode` of documents (title, space, text) and queries."""
    texts = [f"{title} {text}" if title else text for text, title in suite.corpus]
    started = time.perf_counter()
    model.model.encode_document(texts, normalize_embeddings=True, show_progress_bar=False)
    model.model.encode_query(suite.queries, normalize_embeddings=True, show_progress_bar=False)
    return time.perf_counter() - started


def read_expected(file: Path) -> dict[str, dict[str, float]]:
    """Suite -> BM25's and the model's nDCG@10, from the rows of a Markdown table that end in two scores."""
    expected: dict[str, dict[str, float]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        scores = [cell for cell in cells[-2:] if re.fullmatch(r"0?\.\d+|-", cell)]
        if line.startswith("|") and len(scores) == 2:
            pair = zip(("bm25", "model"), scores, strict=True)
            expected[cells[0].split()[0]] = {side: float(score) for side, score in pair if score != "-"}
    if not expected:
        raise InputError(f"{file}: no table row ends in two scores")
    return expected


def violated(measured: dict[str, Any], expected: dict[str, dict[str, float]], suites: int) -> list[str]:
    """What is outside of the limits."""
    failures = []
    if measured["bm25"]["seconds"] > BM25_SECONDS:
        failures.append(f"BM25 took {measured['bm25']['seconds']:.0f} s on {suites} suites, above {BM25_SECONDS:.0f}")
    found = {"bm25": measured["bm25"]["ndcg@10"]}
    if "model" in measured:
        found["model"] = {row["suite"]: row["ndcg@10"] for row in measured["model"]["rows"]}
        if measured["model"]["ratio"] > MORE_THAN_ENCODING:
            failures.append(f"evaluation took {measured['model']['ratio']:.3f} of plain encoding's time")
    for side, scores in found.items():
        for suite, score in scores.items():
            wanted = expected.get(suite, {}).get(side)
            if wanted is not None and abs(score - wanted) > SCORE_DIFFERENCE:
                failures.append(f"{side} on {suite}: nDCG@10 {score:.4f}, expected {wanted:.4f}")
    return failures


def report(measured: dict[str, Any]) -> None:
    """The outcome on stdout."""
    print(f"bm25: {measured['bm25']['seconds']:.1f} s for {len(measured['suites'])} suites, from files to results")
    for suite, score in measured["bm25"]["ndcg@10"].items():
        print(f"  {suite}: nDCG@10 {score:.4f}")
    if "model" in measured:
        model = measured["model"]
        print(
            f"{model['name']}: {model['ours']:.1f} s, plain encode {model['plain']:.1f} s, ratio {model['ratio']:.3f}"
        )


if __name__ == "__main__":
    as_program(main)
