"""What adapting only the upper layers saves in time and costs in quality, at equal rows.

    python -m benchmarks.speed.upper_layers ROWS.jsonl SUITE --base bundled:gemma-3-270m --steps 40 --layers all 12 6

Speed: `model.lora.last_layers` as given, each variant's model loaded beside the others in one process, blocks
of steps in turn (all, 12, 6, all, 12, 6); seconds a step, and the ratio to the first variant within each round.
Quality: each variant trained by `gemma4vec train` on the same rows in the same order for the same steps, with each
seed; nDCG@10 on a dev suite (a sample of it with `--queries`, `--documents`), and the difference to the first variant
query by query, its seeds averaged, with a 95% t interval. The interval says what a query's luck may do; several
`--seeds` say what a seed's does. What was measured is kept; a run that was stopped goes on with what is left.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.objectives import METRIC, score
from benchmarks.shared.record import RESULTS, as_program, say, shown, summary, write_result
from benchmarks.shared.saved_measurements import SavedMeasurements
from gemma4vec.data.loading.load_rows import load_sources
from gemma4vec.data.suites.retrieval import RetrievalSuite, load_suite
from gemma4vec.data.suites.sample import sample_suite
from gemma4vec.machine.file_hashes import file_hash
from gemma4vec.model.bases.resolve import resolve_base
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.recipe.load import dump_recipe, load_recipe
from gemma4vec.recipe.schema import Recipe
from gemma4vec.statistics.student import t_interval

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "src/gemma4vec/pipeline/quickstart.yaml"


def main() -> None:
    arguments = parse_arguments()
    suite = sample_suite(load_suite(arguments.suite), arguments.queries, arguments.documents)
    names = ("base", "steps", "batch_rows", "negatives", "tokens", "warm_up", "repeats", "block", "set")
    settings = {name: getattr(arguments, name) for name in names}
    about = settings | {"rows": file_hash(arguments.rows), "suite": [suite.name, suite.fingerprint]}
    kept = SavedMeasurements("upper_layers", about, fresh=arguments.fresh)
    scores: dict[str, list[list[float]]] = {}
    for layers in arguments.layers:
        found = [
            kept.take(f"quality of {layers}, seed {seed}", lambda n=layers, s=seed: quality(n, s, suite, arguments))  # type: ignore[misc]
            for seed in arguments.seeds
        ]
        scores[layers] = [one["scores"] for one in found]
    speed = {}
    if not arguments.no_speed:
        speed = kept.take(f"speed of {', '.join(arguments.layers)}", lambda: speeds(arguments))
    measured = {
        "speed": speed,
        "quality": {
            name: compared(np.array(found), np.array(next(iter(scores.values())))) for name, found in scores.items()
        },
    }
    report(arguments.layers, measured, suite)
    around = {
        "settings": settings | {"rows": arguments.rows.name, "seeds": arguments.seeds, "layers": arguments.layers}
    }
    about_suite = {"suite": suite.name, "queries": len(suite.queries), "documents": len(suite.corpus), "metric": METRIC}
    write_result("upper_layers", around | about_suite | {"measured": measured}, arguments.results)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="JSONL of rows to train on")
    parser.add_argument("suite", type=Path, help="dev suite, a folder in BEIR layout")
    parser.add_argument("--base", default="bundled:gemma-3-270m")
    parser.add_argument(
        "--layers",
        nargs="+",
        default=["all", "12", "6"],
        help="all, or last_layers; the first is what others differ from",
    )
    parser.add_argument("--steps", type=int, default=40, help="of each training")
    parser.add_argument("--batch-rows", type=int, default=32)
    parser.add_argument("--negatives", type=int, default=0)
    parser.add_argument("--tokens", type=int, nargs=2, default=[32, 96], metavar=("QUERY", "DOCUMENT"), help="cuts")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--queries", type=int, help="sample so many queries of the suite")
    parser.add_argument("--documents", type=int, help="and so many documents, judged ones first")
    parser.add_argument("--warm-up", type=int, default=2, help="steps of each variant before the first round")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--block", type=int, default=2, help="steps of a variant in a round")
    parser.add_argument("--no-speed", action="store_true", help="quality alone")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override in the recipe")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    return parser.parse_args()


def recipe_of(layers: str, arguments: argparse.Namespace) -> Recipe:
    """The quickstart's recipe on these rows, with adapters in all layers or in the last ones."""
    queries, documents = arguments.tokens
    changes = [
        "name=upper-layers",
        f"model.base={arguments.base}",
        "model.prompts=retrieval",
        f"model.lora.last_layers={'null' if layers == 'all' else layers}",
        f"stages.0.data=[{{name: rows, path: {arguments.rows.resolve()}}}]",
        f"stages.0.task.hard_negatives={arguments.negatives}",
        f"stages.0.batch={{rows: {arguments.batch_rows}, query_tokens: {queries}, document_tokens: {documents}}}",
        f"stages.0.budget={{steps: {arguments.steps}}}",
        "stages.0.evaluation={checkpoint_seconds: 3600}",
    ]
    return load_recipe(QUICKSTART, [*changes, *arguments.set])


def quality(layers: str, seed: int, suite: RetrievalSuite, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train one variant with one seed; each query's nDCG@10, and what the run says of itself."""
    say(f"last_layers {layers}, seed {seed}: training")
    with tempfile.TemporaryDirectory(prefix="upper-layers-") as folder:
        file = Path(folder) / "recipe.yaml"
        file.write_text(dump_recipe(recipe_of(layers, arguments)), encoding="utf-8")
        words = ["-m", "gemma4vec", "train", str(file), "--seed", str(seed), "--json", "--out", folder]
        path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            [sys.executable, *words], env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, check=True
        )
        trained = json.loads(done.stdout)
        model = Embedder.load(trained["run"])
        scores = score(suite, model.encode_query(suite.queries), model.encode_document(suite.corpus))
    say(f"last_layers {layers}, seed {seed}: {METRIC} {scores.mean():.4f}, {trained['seconds']:.0f} s of training")
    return {"scores": scores.tolist(), "seconds": trained["seconds"], "tokens": trained["tokens"]}


def speeds(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds a step of every variant, in turn, and ratios to the first variant round by round."""
    from benchmarks.shared.our_trainer import build_ours

    total = arguments.warm_up + arguments.repeats * arguments.block
    sides: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="upper-layers-") as folder:
        for layers in arguments.layers:
            recipe = recipe_of(layers, arguments)
            base = resolve_base(recipe.model.base)
            rows = load_sources(recipe.stages[0].data).rows
            sides[layers] = build_ours(recipe, base, rows, Path(folder), total)
            sides[layers].prepare()
            sides[layers].train(arguments.warm_up)
        seconds: dict[str, list[float]] = {layers: [] for layers in sides}
        for number in range(arguments.repeats):
            for layers, side in sides.items():
                seconds[layers].append(side.train(arguments.block) / arguments.block)
            say(
                f"round {number + 1}: "
                + ", ".join(f"{name} {found[-1]:.2f} s a step" for name, found in seconds.items())
            )
    if len({tuple(side.tokens) for side in sides.values()}) > 1:
        raise RuntimeError("the variants read other tokens; they should differ in their adapters alone")
    first = seconds[arguments.layers[0]]
    return {
        "compiled": all(side.built.encoder.backbone.compiled for side in sides.values()),
        "dtype": str(sides[arguments.layers[0]].dtype),
        "tokens_per_step": float(np.mean(sides[arguments.layers[0]].tokens[arguments.warm_up :])),
        "trained_parameters": {name: sum(p.numel() for p in s.built.trainable().values()) for name, s in sides.items()},
        "seconds_per_step": {name: summary(found) for name, found in seconds.items()},
        "times_as_fast": {
            name: summary([one / other for one, other in zip(first, found, strict=True)])
            for name, found in seconds.items()
        },
    }


def compared(scores_SN: np.ndarray, first_SN: np.ndarray) -> dict[str, Any]:
    """Mean nDCG@10 of each seed, and the paired difference to the first variant, seeds averaged query by query."""
    away_N = scores_SN.mean(axis=0) - first_SN.mean(axis=0)
    return {
        "mean": float(scores_SN.mean()),
        "by_seed": scores_SN.mean(axis=1).tolist(),
        "difference": vars(t_interval(away_N)) if away_N.any() else None,
    }


def report(layers: Sequence[str], measured: dict[str, Any], suite: RetrievalSuite) -> None:
    """A line for each variant."""
    for name in layers:
        found, line = measured["quality"][name], f"last_layers {name:<4}"
        if measured["speed"]:
            line += f" {shown(measured['speed']['seconds_per_step'][name], 2)} s a step, "
            line += f"{shown(measured['speed']['times_as_fast'][name], 2)} times as fast;"
        line += f" {suite.name} {METRIC} {found['mean']:.4f}"
        if found["difference"] is not None:
            away = found["difference"]
            line += f", {away['mean']:+.4f} [{away['low']:+.4f}, {away['high']:+.4f}]"
        print(line)


if __name__ == "__main__":
    as_program(main)
