"""What each term of the loss does to retrieval, whole, short and quantised, at equal budget on real data.

    python -m benchmarks.quality.objectives rows.jsonl SUITE --steps 40 --negatives 2 \\
        --set model.prompts=retrieval stages.0.optimizer.learning_rate=5e-4

For each setting a model is trained (`gemma4vec train`, same base, rows, order of rows and steps; only the terms differ)
and encodes the suite once. Its vectors are then searched whole, cut to their first 128 values, with values rounded to
int8 (a scale for each dimension, from the documents) and as their signs alone, both sides; nDCG@10 of each. Differences
are to plain InfoNCE of the same seed, query by query, with 95% intervals over the queries of the seeds' means (over
seeds too from 6 seeds on); the difference of each seed alone stands beside them, since another seed may move a result
further than its interval is wide.

A model that finds nothing compares nothing: where plain InfoNCE stays below `--least`, the program ends (exit code 1)
after that first training, and says so. Give it more steps, another learning rate or another base.

Before it begins it says how long it will take, by a dry run of the first setting. All settings are trained with the
first seed, then all with the next. After each training the result file is written anew, and each query's scores are
kept in `--kept`: a run that was stopped goes on with the next training.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.shared.record import RESULTS, as_program, say, write_result
from gemma4vec.data.suites.retrieval import RetrievalSuite, load_suite
from gemma4vec.errors import WorkError
from gemma4vec.evaluation.scoring.metrics import per_query
from gemma4vec.files import home, sha256_text
from gemma4vec.machine.file_hashes import file_hash
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.retrieval.exact import search
from gemma4vec.retrieval.top_k import descending_id_rank
from gemma4vec.statistics.seeds import seed_interval

ROOT = Path(__file__).parents[2]
PLAIN, METRIC, SHORT = "nce", "ndcg@10", 128
Vectors = NDArray[np.float32]
Scores = dict[str, NDArray[np.float64]]  # by view, a value for each query


def settings(
    width: int, teacher: str | None, *, scored: bool = False, scale: float = 1.0, dropless: bool = True
) -> dict[str, list[dict[str, Any]]]:
    """The terms of each setting.

    Args:
        width: the model's dimension.
        teacher: for matching.
        scored: whether the rows have a teacher's scores; they count times `scale` in margin_mse.
        dropless: the model has no dropout, so that there is no second view of a text.
    """
    prefixes = [width, *(d for d in (256, SHORT) if d < width)]
    nce: dict[str, Any] = {"kind": "nce", "hardness": 0.0}
    found = {
        PLAIN: [nce],
        "hardness": [nce | {"hardness": True}],
        "own hard negatives alone": [nce | {"share_hard_negatives": False}],
        "gor": [nce, {"kind": "gor"}],
        "gor spread_out": [nce, {"kind": "gor", "form": "spread_out"}],
        "matryoshka": [nce | {"matryoshka": prefixes}],
        "symmetric": [nce | {"symmetric": True}],
        "query_query, passage_passage": [nce | {"query_query": True, "passage_passage": True}],
        "false_negative_margin": [nce | {"false_negative_margin": 0.1}],
        "all of EmbeddingGemma's": [
            nce | {"hardness": True, "matryoshka": prefixes},
            {"kind": "gor", "matryoshka": prefixes},
        ],
    }
    if scored:
        found["kl"] = [nce, {"kind": "kl"}]
        found["margin_mse"] = [nce, {"kind": "margin_mse", "teacher_scale": scale}]
    if not dropless:
        found["self_contrast"] = [nce, {"kind": "self_contrast"}]
    if teacher is not None:
        found["matching"] = [nce, {"kind": "matching", "teacher": teacher, "form": "relational"}]
    return found


def main() -> None:
    arguments = parse_arguments()
    suite = load_suite(arguments.suite)
    every = settings(
        arguments.width,
        arguments.teacher,
        scored=arguments.scores,
        scale=arguments.teacher_scale,
        dropless=not any(word.startswith("model.lora.dropout=") for word in arguments.overrides),
    )
    unknown = set(arguments.settings) - set(every)
    if unknown:
        raise SystemExit(f"--settings: there is no {sorted(unknown)[0]!r}; there are {', '.join(every)}")
    chosen = [PLAIN, *(name for name in arguments.settings or every if name != PLAIN)]
    trainings = [(name, seed) for seed in arguments.seeds for name in chosen]
    files = {one: arguments.kept / f"{key(every[one[0]], one[1], suite, arguments)}.npz" for one in trainings}
    left = [one for one in trainings if not files[one].is_file()]
    if left:
        seconds = estimate(every[left[0][0]], arguments)
        each = f"about {seconds / 60:.1f} minutes of training each, and encoding the suite"
        say(f"{len(left)} of {len(trainings)} trainings to go, {each}")
    scores: dict[str, dict[int, Scores]] = {}
    for name, seed in trainings:
        if (name, seed) in left:
            say(f"{name}, seed {seed}: training")
            started = time.perf_counter()
            keep(files[name, seed], train_and_score(every[name], seed, suite, arguments))
            say(f"{name}, seed {seed}: {time.perf_counter() - started:.0f} s")
        with np.load(files[name, seed]) as kept:
            scores.setdefault(name, {})[seed] = {view: kept[view] for view in VIEWS}
        found = float(scores[name][seed]["whole"].mean())
        if name == PLAIN and found < arguments.least:
            raise WorkError(
                f"{name}, seed {seed}: {METRIC} {found:.4f}, less than --least {arguments.least:g}; models that "
                "find so little cannot be compared: train longer, at another rate, or on another base"
            )
        if (name, seed) in left or (name, seed) == trainings[-1]:  # what was kept does not shorten the file
            write(scores, every, suite, arguments)


def key(terms: list[dict[str, Any]], seed: int, suite: RetrievalSuite, arguments: argparse.Namespace) -> str:
    """What a training's scores depend on: recipe, contents of the rows, suite."""
    recipe = recipe_of(terms, seed, arguments)
    described = json.dumps([recipe, arguments.overrides, suite.fingerprint, file_hash(arguments.rows)], sort_keys=True)
    return sha256_text(described)[:16]


def keep(file: Path, scores: Scores) -> None:
    """Whole or not at all: what was half written would pass for a training that is done."""
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_suffix(".part")
    with half.open("wb") as stream:
        np.savez(stream, **scores)  # type: ignore[arg-type]  # numpy's stub takes them for its own option
    half.replace(file)


def write(
    scores: dict[str, dict[int, Scores]],
    every: dict[str, list[dict[str, Any]]],
    suite: RetrievalSuite,
    arguments: argparse.Namespace,
) -> None:
    """The result of the trainings that are done."""
    measured = {
        name: {
            "terms": every[name],
            "seeds": list(of_seed),
            "mean": {view: float(np.mean([found[view] for found in of_seed.values()])) for view in VIEWS},
            "difference": {view: difference(of_seed, scores[PLAIN], view) if name != PLAIN else None for view in VIEWS},
        }
        for name, of_seed in scores.items()
    }
    report(measured)
    kept = ("base", "steps", "batch_rows", "negatives", "seeds", "width", "overrides", "teacher")
    about = {"suite": suite.name, "queries": len(suite.queries), "documents": len(suite.corpus), "metric": METRIC}
    shown = {key: getattr(arguments, key) for key in kept}
    write_result("objectives", {"settings": shown, **about, "measured": measured}, arguments.results)


def difference(setting: dict[int, Scores], plain: dict[int, Scores], view: str) -> dict[str, Any]:
    """A setting's scores minus plain InfoNCE's of the same seeds, with the interval and what each seed says."""
    by_seed = {seed: found[view] - plain[seed][view] for seed, found in setting.items()}
    found = seed_interval(np.stack(list(by_seed.values())))
    return {
        "mean": found.mean,
        "low": found.low,
        "high": found.high,
        "by_seed": {str(seed): float(values.mean()) for seed, values in by_seed.items()},
        "over_seeds": found.over_seeds,
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="JSONL of rows to train on")
    parser.add_argument("suite", type=Path, help="folder in BEIR layout")
    parser.add_argument("--base", default="bundled:gemma-3-270m")
    parser.add_argument("--width", type=int, default=640, help="the base's dimension (smollm2-135m: 576)")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-rows", type=int, default=32)
    parser.add_argument("--negatives", type=int, default=1, help="hard negatives a row; 0 leaves out hardness")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--teacher", help="adds a setting with it, such as bundled:all-minilm-l6-v2")
    parser.add_argument(
        "--scores", action="store_true", help="the rows have a teacher's scores: adds kl and margin_mse"
    )
    parser.add_argument("--teacher-scale", type=float, default=1.0, help="of margin_mse")
    parser.add_argument("--settings", nargs="*", default=[], metavar="NAME", help="default: all")
    parser.add_argument("--set", dest="overrides", nargs="*", default=[], metavar="KEY=VALUE", help="of the recipe")
    parser.add_argument("--least", type=float, default=0.2, help="nDCG@10 that plain InfoNCE must reach")
    parser.add_argument("--kept", type=Path, default=home() / "objectives", help="folder of trainings that are done")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    arguments = parser.parse_args()
    if arguments.negatives < 1:
        parser.error("--negatives: hardness needs one at least")
    return arguments


def recipe_of(terms: list[dict[str, Any]], seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The recipe of a training."""
    return {
        "name": "objectives",
        "seed": seed,
        "model": {"base": arguments.base, "attention": "causal", "readout": "last_token"},
        "stages": [
            {
                "data": [{"name": "rows", "path": str(arguments.rows.resolve())}],
                "task": {"hard_negatives": arguments.negatives, "terms": terms},
                "batch": {"rows": arguments.batch_rows, "query_tokens": 64, "document_tokens": 128},
                "budget": {"steps": arguments.steps},
            }
        ],
    }


def estimate(terms: list[dict[str, Any]], arguments: argparse.Namespace) -> float:
    """Seconds of one training, by a dry run."""
    with tempfile.TemporaryDirectory(prefix="objectives-") as folder:
        return float(command(terms, arguments.seeds[0], arguments, folder, "--dry-run")["seconds"])


def command(
    terms: list[dict[str, Any]], seed: int, arguments: argparse.Namespace, folder: str, *words: str
) -> dict[str, Any]:
    """What `gemma4vec train --json` says of a training."""
    file = Path(folder) / "recipe.json"  # JSON is YAML
    file.write_text(json.dumps(recipe_of(terms, seed, arguments)), encoding="utf-8")
    line = [sys.executable, "-m", "gemma4vec", "train", str(file), *arguments.overrides, "--json", "--out", folder]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([*line, *words], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def train_and_score(
    terms: list[dict[str, Any]], seed: int, suite: RetrievalSuite, arguments: argparse.Namespace
) -> Scores:
    """nDCG@10 of each query by view of the vectors."""
    with tempfile.TemporaryDirectory(prefix="objectives-") as folder:
        model = Embedder.load(command(terms, seed, arguments, folder)["run"])
        queries_ND, documents_MD = model.encode_query(suite.queries), model.encode_document(suite.corpus)
    return {name: score(suite, *view(queries_ND, documents_MD)) for name, view in VIEWS.items()}


def short(queries_ND: Vectors, documents_MD: Vectors) -> tuple[Vectors, Vectors]:
    """The first 128 values at unit length."""
    return _unit(queries_ND[:, :SHORT]), _unit(documents_MD[:, :SHORT])


def int8(queries_ND: Vectors, documents_MD: Vectors) -> tuple[Vectors, Vectors]:
    """Values as whole numbers from -127 to 127 of each dimension's scale; the scales are kept in the scores."""
    scale_D = np.abs(documents_MD).max(axis=0) / 127.0 + 1e-12

    def rounded(vectors: Vectors) -> Vectors:
        return (np.clip(np.round(vectors / scale_D), -127, 127) * scale_D).astype(np.float32)

    return rounded(queries_ND), rounded(documents_MD)


def binary(queries_ND: Vectors, documents_MD: Vectors) -> tuple[Vectors, Vectors]:
    """Signs alone, so that inner products order as Hamming distances do."""
    return np.where(queries_ND > 0, 1.0, -1.0).astype(np.float32), np.where(documents_MD > 0, 1.0, -1.0).astype("f4")


def _unit(vectors: Vectors) -> Vectors:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


VIEWS: dict[str, Callable[[Vectors, Vectors], tuple[Vectors, Vectors]]] = {
    "whole": lambda queries, documents: (queries, documents),
    f"{SHORT}-d": short,
    "int8": int8,
    "binary": binary,
}


def score(suite: RetrievalSuite, queries_ND: Vectors, documents_MD: Vectors) -> NDArray[np.float64]:
    """nDCG@10 of each query."""
    depth = min(1000, len(suite.corpus))
    ranks = descending_id_rank(suite.corpus_ids)
    found = search(queries_ND, documents_MD, depth, descending_id_rank=ranks)
    scored = per_query(found.indices, found.scores, suite.query_ids, suite.corpus_ids, suite.qrels, [METRIC])
    return scored[METRIC]


def report(measured: dict[str, dict[str, Any]]) -> None:
    """A line for each setting: nDCG@10, and the difference to plain InfoNCE with its interval."""
    say(f"{'nDCG@10':<32}" + "".join(f"{view:>34}" for view in VIEWS))
    for name, found in measured.items():
        line = f"{name:<32}"
        for view in VIEWS:
            away = found["difference"][view]
            around = f" {away['mean']:+.4f} [{away['low']:+.4f}, {away['high']:+.4f}]" if away else ""
            line += f"{found['mean'][view]:>8.4f}{around:>26}"
        say(line)


if __name__ == "__main__":
    as_program(main)
