"""Do gemma4vec's scores agree with trec_eval's, query by query?

    python -m benchmarks.statistics.trec_agreement DIR... [--model RUN]

gemma4vec evaluates BM25 (and a model) on each suite; a DIR is a suite or a folder of suites. Beside it, this program
reads the three files of the suite on its own, takes nothing from gemma4vec but the run (document ids and fp32 scores of
the top 1000), and scores that twice: by pytrec_eval, and by the metrics' definitions in plain Python. Fails (exit code
1) above a difference of 1e-9, or where the two do not score the same queries. Nothing is timed.
"""

import argparse
import csv
import gzip
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytrec_eval
import yaml

from benchmarks.shared.record import RESULTS, as_program, say, write_result
from gemma4vec.data.suites.retrieval import RetrievalSuite, load_suite
from gemma4vec.errors import InputError
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.evaluation.scoring.ranking import Progress, Ranker, Ranking

LIMIT = 1e-9
DEPTH = 1000
METRICS = ("ndcg@10", "ndcg_binary@10", "recall@100", "mrr@10", "map")
Qrels = Mapping[str, Mapping[str, int]]
Run = Mapping[str, Mapping[str, float]]
Scores = dict[str, dict[str, float]]  # query id -> metric -> value


class Recorder:
    """A ranker that keeps what it returned."""

    def __init__(self, ranker: Ranker):
        self.ranker = ranker
        self.name, self.fingerprint = ranker.name, ranker.fingerprint

    def describe(self) -> dict[str, Any]:
        return self.ranker.describe()

    def rank(self, suite: RetrievalSuite, depth: int, progress: Progress) -> Ranking:
        self.ranking = self.ranker.rank(suite, depth, progress)
        return self.ranking


def main() -> int:
    arguments = parse_arguments()
    found = []
    for folder in suite_folders(arguments.suites):
        for ranker in rankers(arguments):
            found.append(compare(folder, ranker))
            report(found[-1])
    worst = max(row["largest_difference"] for row in found)
    write_result("trec_agreement", {"limit": LIMIT, "largest_difference": worst, "found": found}, arguments.results)
    print(f"largest difference {worst:.2e}, limit {LIMIT:.0e}: {'agree' if worst <= LIMIT else 'FAILED'}")
    return 0 if worst <= LIMIT else 1


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", type=Path, nargs="+", metavar="DIR", help="folder in BEIR layout, or one of several")
    parser.add_argument("--model", help="also evaluate this run, folder, hub id or bundled:NAME")
    parser.add_argument("--device", help="default: cuda where there is one")
    parser.add_argument("--dtype", choices=["fp32", "bf16"])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    return parser.parse_args()


def suite_folders(named: Sequence[Path]) -> list[Path]:
    """The suites that are named, and those in a folder of several."""
    inside = [[folder] if (folder / "qrels").is_dir() else sorted(folder.glob("*/")) for folder in named]
    found = [one for several in inside for one in several if (one / "qrels" / "test.tsv").is_file()]
    if not found:
        raise InputError(f"no suite in {', '.join(map(str, named))}: qrels/test.tsv is needed")
    return found


def rankers(arguments: argparse.Namespace) -> Iterator[Ranker]:
    """BM25, and the model that was named."""
    from gemma4vec.evaluation.scoring.bm25_model import Bm25Model

    yield Bm25Model()
    if arguments.model:
        from gemma4vec.evaluation.scoring.dense_ranker import EmbedderRanker
        from gemma4vec.model.inference.embedder import Embedder

        yield EmbedderRanker(Embedder.load(arguments.model, device=arguments.device, dtype=arguments.dtype))


def compare(folder: Path, ranker: Ranker) -> dict[str, Any]:
    """gemma4vec's scores of one suite against both others."""
    say(f"{folder.name}: {ranker.name}")
    suite = load_suite(folder)
    recorder = Recorder(ranker)
    result = evaluate(recorder, suite, metrics=METRICS)
    ours: Scores = {query: dict(scores) for query, scores in result.per_query[suite.name].items()}
    options = read_options(folder)
    qrels = read_qrels(folder, options)
    run = run_of(recorder.ranking, suite, bool(options.get("exclude_identical_ids")))
    others = {"pytrec_eval": score_by_pytrec_eval(qrels, run), "definitions": score_by_definitions(qrels, run)}
    row: dict[str, Any] = {"suite": suite.name, "model": ranker.name, "queries": len(ours), "mean": result.mean}
    for name, theirs in others.items():
        row[name] = differences(ours, theirs, result.mean)
    row["largest_difference"] = max(value for name in others for kind in row[name].values() for value in kind.values())
    return row


def read_options(folder: Path) -> dict[str, Any]:
    """The suite's options that change scores."""
    file = folder / "suite.yaml"
    return (yaml.safe_load(file.read_text(encoding="utf-8")) or {}) if file.exists() else {}


def read_qrels(folder: Path, options: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Judgments of the queries that have a positive one, from the three files as BEIR describes them."""
    documents, queries = (read_ids(folder, name) for name in ("corpus.jsonl", "queries.jsonl"))
    drop = options.get("unknown_ids") == "drop"
    qrels: dict[str, dict[str, int]] = {}
    with (folder / "qrels" / "test.tsv").open(encoding="utf-8-sig", newline="") as stream:
        lines = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        next(lines)
        for query, document, grade in (line for line in lines if line):
            if not drop or (query in queries and document in documents):
                qrels.setdefault(query, {})[document] = int(float(grade))
    return {query: judged for query, judged in qrels.items() if max(judged.values()) >= 1}


def read_ids(folder: Path, name: str) -> set[str]:
    """The `_id` of every line."""
    plain = folder / name
    with open_text(plain if plain.exists() else folder / f"{name}.gz") as stream:
        return {str(json.loads(line)["_id"]) for line in stream if line.strip()}


def open_text(file: Path) -> IO[str]:
    """A text file, gzipped or not."""
    return gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8")


def run_of(ranking: Ranking, suite: RetrievalSuite, exclude_identical: bool) -> dict[str, dict[str, float]]:
    """The run: document ids and fp32 scores of the top 1000 of each query, its own document left out where so ruled."""
    run = {}
    for query, indices_K, scores_K in zip(suite.query_ids, ranking.indices, ranking.scores, strict=True):
        scored = {
            suite.corpus_ids[index]: float(np.float32(score))
            for index, score in zip(indices_K.tolist(), scores_K.tolist(), strict=True)
            if index >= 0 and not (exclude_identical and suite.corpus_ids[index] == query)
        }
        run[query] = dict(sorted(scored.items(), key=lambda item: (item[1], item[0]), reverse=True)[:DEPTH])
    return run


def score_by_pytrec_eval(qrels: Qrels, run: Run) -> Scores:
    """trec_eval's own code. It knows no cut for the reciprocal rank: that one gets the first ten documents only."""
    judged = {query: dict(judgments) for query, judgments in qrels.items()}
    evaluator = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.10", "recall.100", "map"})
    whole = evaluator.evaluate({query: dict(ranked) for query, ranked in run.items()})
    relevant = {query: {key: int(grade >= 1) for key, grade in judgments.items()} for query, judgments in qrels.items()}
    binary = pytrec_eval.RelevanceEvaluator(relevant, {"ndcg_cut.10"}).evaluate(
        {query: dict(ranked) for query, ranked in run.items()}
    )
    first_ten = {query: dict(list(ranked.items())[:10]) for query, ranked in run.items()}
    ranks = pytrec_eval.RelevanceEvaluator(judged, {"recip_rank"}).evaluate(first_ten)
    return {
        query: {
            "ndcg@10": whole[query]["ndcg_cut_10"],
            "ndcg_binary@10": binary[query]["ndcg_cut_10"],
            "recall@100": whole[query]["recall_100"],
            "mrr@10": ranks[query]["recip_rank"],
            "map": whole[query]["map"],
        }
        for query in qrels
    }


def score_by_definitions(qrels: Qrels, run: Run) -> Scores:
    """The metrics as they are defined: linear gains over log2(rank + 1); relevant from grade 1."""
    scores: Scores = {}
    for query, judgments in qrels.items():
        grades = [judgments.get(document, 0) for document in run.get(query, {})]
        hits = [rank for rank, grade in enumerate(grades, start=1) if grade >= 1]
        relevant = sum(grade >= 1 for grade in judgments.values())
        ideal = sorted(judgments.values(), reverse=True)
        scores[query] = {
            "ndcg@10": discounted_gain(grades[:10]) / discounted_gain(ideal[:10]),
            "ndcg_binary@10": discounted_gain([int(grade >= 1) for grade in grades[:10]])
            / discounted_gain([1] * min(relevant, 10)),
            "recall@100": sum(rank <= 100 for rank in hits) / relevant,
            "mrr@10": 1.0 / hits[0] if hits and hits[0] <= 10 else 0.0,
            "map": sum(number / rank for number, rank in enumerate(hits, start=1)) / relevant,
        }
    return scores


def discounted_gain(grades: list[int]) -> float:
    """DCG of grades by rank; a negative grade gains nothing."""
    return sum(max(0, grade) / math.log2(rank + 1) for rank, grade in enumerate(grades, start=1))


def differences(ours: Scores, theirs: Scores, mean: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Largest difference per query and difference of means, by metric; infinite where the queries are not the same."""
    if ours.keys() != theirs.keys():
        say(f"other queries are scored: {len(ours)} and {len(theirs)}")
        return {"per_query": dict.fromkeys(METRICS, math.inf), "of_means": dict.fromkeys(METRICS, math.inf)}
    return {
        "per_query": {metric: max(abs(ours[q][metric] - theirs[q][metric]) for q in ours) for metric in METRICS},
        "of_means": {
            metric: abs(mean[metric] - math.fsum(scores[metric] for scores in theirs.values()) / len(theirs))
            for metric in METRICS
        },
    }


def report(row: dict[str, Any]) -> None:
    """The outcome on stdout."""
    means = "  ".join(f"{metric} {row['mean'][metric]:.4f}" for metric in METRICS)
    print(f"{row['suite']}  {row['model']}  {row['queries']} queries  {means}")
    for name in ("pytrec_eval", "definitions"):
        per_query, of_means = (max(row[name][kind].values()) for kind in ("per_query", "of_means"))
        print(f"    against {name}: at most {per_query:.1e} for a query, {of_means:.1e} of means")


if __name__ == "__main__":
    as_program(main)
