"""How good a model becomes in a fixed time: candidates chosen on dev suites, then frozen, the final suites opened once.

    python -m benchmarks.quality.quality DATA --plan benchmarks/quality/plan_270m.yaml --out FOLDER [--minutes 60]

DATA holds `train/NAME.jsonl.gz` (rows) and `retrieval/NAME` (suites in BEIR's layout). In this order:

1. `data check --clean`: rows without what any suite holds. The final suites are locked.
2. Every candidate of the plan is trained for `try_minutes` and scored on samples of the dev suites; the best mean wins.
3. The winner is trained for `minutes`; kept weights give the learning curve on the same samples.
4. `runs freeze`. Then the model, `--peer` and BM25 answer all suites, whole; mean nDCG@10 over the suites, and the
   paired difference to the peer, query by query.

What is done stays in FOLDER; the same command goes on where it was stopped, a training from its last checkpoint. What
more time would bring is read off two whole trainings of one recipe, the winner's short one and its long one: points of
nDCG@10 for each doubling. (Weights kept on the way have not yet seen the end of the learning rate's schedule, and lie
below what a training of that length gives.)
"""

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.shared.record import RESULTS, as_program, say, write_result
from benchmarks.shared.saved_measurements import SavedMeasurements
from gemma4vec.errors import InputError
from gemma4vec.evaluation.comparison.compare import compare
from gemma4vec.evaluation.results.result import Result, load_result
from gemma4vec.files import sha256_text
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.machine.file_hashes import file_hash

ROOT = Path(__file__).parents[2]
METRIC = "ndcg@10"
Measured = dict[str, Any]


def main() -> None:
    arguments = parse_arguments()
    work = Quality(arguments)
    work.prepare()
    tried = {name: work.kept.take(f"try {name}", lambda n=name: work.try_out(n)) for name in work.plan["candidates"]}  # type: ignore[misc]
    for name, found in tried.items():
        say(f"  {name}: mean {METRIC} {found['mean']:.4f} on dev")
    best = max(tried, key=lambda name: float(tried[name]["mean"]))
    trained = work.kept.take(f"train {best}", lambda: work.train(best))
    curve = work.kept.take(f"curve of {best}", lambda: work.curve(trained["run"]))
    work.kept.take("freeze", lambda: work.command("runs", "freeze", trained["run"], "chosen on the dev suites"))
    models = {"trained": trained["run"], "peer": arguments.peer, "bm25": "bm25"}
    scores = {name: work.answers(name, model) for name, model in models.items()}
    measured = {
        "plan": work.plan,
        "rows": work.kept.settings["clean"]["rows"],
        "tried": {name: without_run(found) for name, found in tried.items()},
        "chosen": best,
        "trained": without_run(trained),
        "curve": curve,
        "gain_per_doubling": gain_per_doubling(tried[best], trained, curve),
        "suites": {name: {suite: one.mean[METRIC] for suite, one in of.items()} for name, of in scores.items()},
        "mean": {name: mean_over_suites(of) for name, of in scores.items()},
        "trained_minus": {name: difference(scores["trained"], scores[name]) for name in ("peer", "bm25")},
    }
    report(measured)
    write_result("quality", measured, arguments.results)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/ and retrieval/")
    parser.add_argument("--plan", type=Path, default=ROOT / "benchmarks/quality/plan_270m.yaml")
    parser.add_argument("--out", type=Path, required=True, help="folder of everything that is made")
    parser.add_argument("--minutes", type=float, help="of the long training (default: the plan's)")
    parser.add_argument("--peer", default="bundled:all-minilm-l6-v2", help="model that is compared with")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change of every training")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    return parser.parse_args()


class Quality:
    """The work on one plan and one folder of data; everything lies below `--out`, the ledger too."""

    def __init__(self, arguments: argparse.Namespace):
        self.data, self.peer, self.overrides = arguments.data.resolve(), arguments.peer, arguments.set
        self.plan: Measured = yaml.safe_load(arguments.plan.read_text(encoding="utf-8"))
        if arguments.minutes:
            self.plan["minutes"] = arguments.minutes
        self.out: Path = arguments.out.resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        self.suites = sorted(path.parent.parent for path in self.data.glob("retrieval/*/qrels/test.tsv"))
        self.dev = [one["suite"] for one in self.plan["dev"]]
        missing = sorted(set(self.dev) - {suite.name for suite in self.suites})
        if missing:
            raise InputError(f"{self.data}/retrieval has no suite {missing[0]}; it has {[s.name for s in self.suites]}")
        files = {name: file_hash(path) for name, path in self.files().items()}
        about = {"plan": self.plan, "files": files, "peer": self.peer, "set": self.overrides}
        self.kept = SavedMeasurements("quality", about, folder=self.out, any_commit=True)

    def files(self) -> dict[str, Path]:
        """The files of rows that the plan weighs."""
        found = {}
        for name in self.plan["weights"]:
            path = self.data / "train" / f"{name}.jsonl.gz"
            if name not in self.plan["sources"]:
                if not path.is_file():
                    raise InputError(f"weights.{name}: no {path}, and no source of that name")
                found[name] = path
        return found

    def command(self, *words: str) -> Measured:
        """What a command of ours says as JSON; its progress goes where ours does."""
        paths = {"PYTHONPATH": str(ROOT / "src"), "GEMMA4VEC_HOME": str(self.out / "home")}
        line = [sys.executable, "-m", "gemma4vec", *words, "--json"]
        done = subprocess.run(line, env=os.environ | paths, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise InputError(f"gemma4vec {' '.join(words[:2])} ended with {done.returncode}: see above")
        found: Measured = json.loads(done.stdout)
        return found

    def prepare(self) -> None:
        """Clean rows, the dev suites as one file, the final suites locked."""
        self.kept.take("clean", self.clean)
        listed = [one | {"suite": str(self.data / "retrieval" / one["suite"])} for one in self.plan["dev"]]
        (self.out / "dev.yaml").write_text(yaml.safe_dump({"role": "dev", "suites": listed}), encoding="utf-8")
        for suite in self.suites:
            if suite.name not in self.dev:
                finals = self.out / "final" / f"{suite.name}.yaml"
                finals.parent.mkdir(exist_ok=True)
                finals.write_text(yaml.safe_dump({"role": "final", "suites": [str(suite)]}), encoding="utf-8")
                self.kept.take(f"lock {suite.name}", lambda s=finals: self.command("runs", "lock", str(s)))  # type: ignore[misc]

    def clean(self) -> Measured:
        """Rows left of each source, without what the suites hold."""
        files = {name: {"path": str(path)} for name, path in self.files().items()}
        sources = [{"name": name, **(files | self.plan["sources"])[name]} for name in self.plan["weights"]]
        recipe = self.recipe_file("clean", sources, {"steps": 1})
        against = ("--against", str(self.data / "retrieval"))
        found = self.command("data", "check", str(recipe), *against, "--clean", str(self.out / "clean"))
        return {"rows": found["clean"]["rows"], "before": {one["name"]: one["rows"] for one in found["sources"]}}

    def recipe_file(self, name: str, sources: list[Measured], budget: Measured) -> Path:
        """The plan's recipe with its data and budget, written down."""
        recipe = json.loads(json.dumps(self.plan["recipe"]))
        recipe["stages"][0] |= {"data": sources, "budget": budget}
        file = self.out / "recipes" / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
        return file

    def trained(self, name: str, minutes: float, *changes: str) -> Measured:
        """Train a candidate; one that was stopped goes on from its last checkpoint."""
        sources = [
            {"name": one, "path": str(self.out / "clean" / f"{one}.jsonl.gz"), "weight": weight}
            for one, weight in self.plan["weights"].items()
        ]
        recipe = self.recipe_file(name, sources, {"minutes": minutes})
        settings = [*self.plan["candidates"][name], *self.overrides, *changes]
        return self.go_on(self.out / "runs" / f"{name}-{minutes:g}", str(recipe), settings)

    def go_on(self, runs: Path, recipe: str, settings: list[str]) -> Measured:
        """Train below `runs`, from the last checkpoint there; what is finished is not trained again."""
        begun = sorted(runs.glob("*/checkpoints/*/step-*")) if runs.is_dir() else []
        if begun:
            run = RunFolder(begun[-1].parents[2])
            if finished := run.events("finished"):
                return finished[-1] | {"run": str(run.path)}
            return self.command("train", "--resume", str(run.path))
        return self.command("train", recipe, *settings, "--out", str(runs))

    def try_out(self, name: str) -> Measured:
        """A short training and its scores on the dev samples."""
        say(f"{name}: {self.plan['try_minutes']:g} minutes")
        made = self.trained(name, self.plan["try_minutes"])
        scored = self.command("eval", made["run"], "--suite", str(self.out / "dev.yaml"))
        tasks = {task: one[METRIC] for task, one in load_result(Path(scored["folder"])).tasks.items()}
        return {"run": made["run"], "tokens": made["tokens"], "seconds": made["seconds"], "tasks": tasks} | {
            "mean": sum(tasks.values()) / len(tasks)
        }

    def train(self, name: str) -> Measured:
        """The long training."""
        say(f"{name}: {self.plan['minutes']:g} minutes")
        made = self.trained(
            name, self.plan["minutes"], f"stages.0.evaluation={{snapshot_at_shares: {self.plan['checkpoints']}}}"
        )
        return {"run": made["run"], "tokens": made["tokens"], "seconds": made["seconds"]}

    def curve(self, run: str) -> Measured:
        """Scores of the weights that were kept on the way, and of the model, on the dev samples."""
        found = self.command("eval", run, "--checkpoints", "--suite", str(self.out / "dev.yaml"))
        last = self.command("eval", run, "--suite", str(self.out / "dev.yaml"))
        return {"checkpoints": found, "model": load_result(Path(last["folder"])).mean[METRIC]}

    def answers(self, name: str, model: str) -> dict[str, Result]:
        """The results of a model on all suites, whole."""
        found = {}
        for suite in self.suites:
            dev = suite.name in self.dev
            spec = str(suite if dev else self.out / "final" / f"{suite.name}.yaml")
            role = ("--role", "dev") if dev else ()
            out = self.out / "scores" / name
            made = self.kept.take(
                f"{name} on {suite.name}",
                lambda s=spec, r=role, o=out: self.command("eval", model, "--suite", s, *r, "--out", str(o)),  # type: ignore[misc]
            )
            found[suite.name] = load_result(Path(made["folder"]))
        return found


def without_run(found: Measured) -> Measured:
    """Without where it lies on this machine."""
    return {key: value for key, value in found.items() if key != "run"}


def mean_over_suites(results: dict[str, Result]) -> float:
    """Each suite counts once."""
    return sum(one.mean[METRIC] for one in results.values()) / len(results)


def difference(a: dict[str, Result], b: dict[str, Result]) -> Measured:
    """A minus B over all suites, each a task that counts once; paired by query."""
    found = compare(joined(a), joined(b), METRIC, allow_different_settings=True)
    interval = [found.interval.low, found.interval.high]
    by_suite = {}
    for suite in a:
        one = compare(a[suite], b[suite], METRIC, allow_different_settings=True)
        by_suite[suite] = {"mean": one.difference, "interval": [one.interval.low, one.interval.high], "p": one.test.p}
    return {"mean": found.difference, "interval": interval, "p": found.test.p, "by_suite": by_suite}


def joined(results: dict[str, Result]) -> Result:
    """One result of all suites."""
    first = next(iter(results.values()))
    per_query = {suite: next(iter(one.per_query.values())) for suite, one in results.items()}
    prints = sha256_text(*(str(one.settings["suite"]["fingerprint"]) for one in results.values()))
    settings = {**first.settings, "suite": {"fingerprint": prints}, "contamination": None}
    return Result(first.model, "all suites", per_query, settings)


def gain_per_doubling(short: Measured, long: Measured, curve: Measured) -> Measured:
    """Points of the dev samples' mean for each doubling of tokens, between two whole trainings of one recipe."""
    doublings = math.log2(long["tokens"] / short["tokens"])
    gain = (curve["model"] - short["mean"]) / doublings
    return {"doublings": doublings, "from": short["mean"], "to": curve["model"], "gain": gain}


def report(measured: Measured) -> None:
    """A line for each suite, then the means."""
    models = list(measured["suites"])
    say(f"{'nDCG@10':<24}" + "".join(f"{name:>10}" for name in models))
    for suite in measured["suites"]["trained"]:
        say(f"{suite:<24}" + "".join(f"{measured['suites'][name][suite]:>10.4f}" for name in models))
    say(f"{'mean':<24}" + "".join(f"{measured['mean'][name]:>10.4f}" for name in models))
    for name, minus in measured["trained_minus"].items():
        low, high = minus["interval"]
        say(f"trained - {name}: {minus['mean']:+.4f} [{low:+.4f}, {high:+.4f}], p = {minus['p']:.4f}")
    per = measured["gain_per_doubling"]
    say(f"each doubling of the time brought {per['gain']:+.4f} on dev ({per['from']:.4f} to {per['to']:.4f})")


if __name__ == "__main__":
    as_program(main)
