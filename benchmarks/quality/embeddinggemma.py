"""EmbeddingGemma's claims at the size of a 270M model: encoder first, pooling, soup, four bits with training for them.

    python -m benchmarks.quality.embeddinggemma DATA --out DIR [--parts adapt first pooling soup quantize] [--seeds 2]

DATA holds `train/NAME.jsonl.gz` (rows) and `retrieval/NAME` (suites in BEIR's layout), as for quality.py; the plan
`quality/embeddinggemma_270m.yaml` names those that are used. Each part compares trainings of one budget on the same
rows, and scores them on the same samples of three dev suites; a difference is paired query by query, for each seed.

- adapt: UL2 and masked next-token prediction, ten minutes each; UL2's loss of held-out texts must fall by 1.5 nats.
- first: equally many steps of contrast from the decoder, from both adaptations, and from the decoder with as many steps
  more as UL2's seconds give; next to them the decoder with causal attention and the last token.
- pooling: mean, attention, first and last token from the encoder that UL2 made, at equal contrast.
- soup: pre-finetuning, three mixtures, their mean; next to it one run on all mixtures with their steps together.
- quantize: a model after rounding, and after 60 steps that train for it, next to the same steps without rounding.

Only the adaptations have a budget in minutes: on a busy machine the others take longer and give the same. What is done
stays in FOLDER; the same command goes on where it was stopped, a training from its last checkpoint.
"""

import argparse
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.quality.quality import METRIC, Quality, without_run
from benchmarks.shared.record import RESULTS, as_program, say, write_result
from gemma4vec.evaluation.comparison.compare import compare
from gemma4vec.evaluation.results.result import Result, load_result
from gemma4vec.files import sha256_text
from gemma4vec.ledger.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
PARTS = ("adapt", "first", "pooling", "soup", "quantize")
SCHEMES = ("q8_0", "q4_0", "mixed")
LEAST_FALL = 1.5  # nats
Measured = dict[str, Any]


def main() -> None:
    arguments = parse_arguments()
    work = Claims(arguments)
    work.prepare()
    measured: Measured = {"plan": work.plan, "seeds": arguments.seeds}
    for part in PARTS:
        if part in arguments.parts:
            measured[part] = getattr(work, part)()
    write_result("embeddinggemma", measured, arguments.results)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/ and retrieval/")
    parser.add_argument("--plan", type=Path, default=ROOT / "benchmarks/quality/embeddinggemma_270m.yaml")
    parser.add_argument("--out", type=Path, required=True, help="folder of everything that is made")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=2, help="of the trainings that are compared")
    parser.add_argument("--steps", type=int, default=60, help="of the training for a scheme")
    parser.add_argument("--model", help="model that is quantized (default: the soup)")
    parser.add_argument("--minutes", type=float, help="of an adaptation (default: the plan's)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change of every training")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    arguments = parser.parse_args()
    arguments.peer = None
    return arguments


class Claims(Quality):
    """The trainings of all parts; each is a candidate of quality.py with changes of its own."""

    def __init__(self, arguments: argparse.Namespace):
        super().__init__(arguments)
        self.seeds, self.steps, self.model = arguments.seeds, arguments.steps, arguments.model
        self.plan["candidates"] = {}
        self.steps_of: dict[str, int] = self.plan["steps"]
        # Two parts share a training, or a model's scores, that both ask for.
        self.slugs: dict[tuple[str, ...], str] = {}
        self.names: dict[str, str] = {}

    def adapt(self) -> Measured:
        """The losses of both adaptations."""
        found = {}
        for name in self.plan["tasks"]:
            made = self.adapted(name)
            events = [dict(event) for event in RunFolder(Path(made["run"])).events("held_out")]
            steps = RunFolder(Path(made["run"])).events("step")
            found[name] = {
                "tokens": made["tokens"],
                "seconds": made["seconds"],
                "steps": len(steps),
                "loss": [steps[0]["loss"], steps[-1]["loss"]],
                "held_out": [event["value"] for event in events],
            }
            say(f"{name}: {found[name]}")
        losses = found["ul2"]["held_out"]
        found["fall"] = losses[0] - losses[-1]
        say(f"ul2: held-out loss {losses[0]:.3f} to {losses[-1]:.3f}: {found['fall']:.2f} nats ({LEAST_FALL} wanted)")
        return found

    def adapted(self, name: str) -> Measured:
        """An adaptation of the plan's minutes."""
        changes = [*self.plan["adapt"], f"stages.0.task={self.plan['tasks'][name]}"]
        return self.run(f"adapt-{name}", float(self.plan["minutes"]), changes)

    def run(self, name: str, minutes: float, changes: list[str]) -> Measured:
        """A training, or what it gave before; a number of steps among the changes takes the place of the minutes."""
        self.plan["candidates"][name] = changes
        return self.kept.take(f"train {name}", lambda: self.trained(name, minutes))

    def first(self) -> Measured:
        """Differences between beginnings, for each seed."""
        ways = {
            "decoder": [],
            "mntp": [f"model.start={self.adapted('mntp')['run']}"],
            "ul2": [f"model.start={self.adapted('ul2')['run']}"],
            "decoder, equal minutes": [f"stages.0.budget={{steps: {self.equal_steps()}}}"],
            "causal last token": ["model.attention=causal", "model.readout=last_token"],
        }
        pairs = [
            ("ul2", "decoder"),
            ("mntp", "decoder"),
            ("ul2", "mntp"),
            ("ul2", "decoder, equal minutes"),
            ("mntp", "decoder, equal minutes"),
            ("ul2", "causal last token"),
        ]
        return self.compared("first", ways, pairs)

    def equal_steps(self) -> int:
        """Steps of contrast in the seconds that UL2 took, and of its contrast, at the median pace of the decoder's."""
        begun = self.contrast("first-decoder-1", ["seed=1"])
        at = [float(event["seconds"]) for event in RunFolder(Path(begun["run"])).events("step")]
        pace = median(later - sooner for sooner, later in pairwise(at))
        return self.steps_of["contrast"] + round(float(self.adapted("ul2")["seconds"]) / pace)

    def pooling(self) -> Measured:
        """Differences between poolings from one encoder, for each seed."""
        start = f"model.start={self.adapted('ul2')['run']}"
        ways = {name: [start, *changes] for name, changes in self.plan["poolings"].items()}
        return self.compared("pooling", ways, [("mean", name) for name in ways if name != "mean"])

    def contrast(self, name: str, changes: list[str]) -> Measured:
        """A training of the plan's steps of contrast, or of those that the changes say."""
        given = any(one.startswith("stages.0.budget=") for one in changes)
        budget = [] if given else [f"stages.0.budget={{steps: {self.steps_of['contrast']}}}"]
        return self.run(name, 1, [*budget, *changes])

    def compared(self, part: str, ways: dict[str, list[str]], pairs: list[tuple[str, str]]) -> Measured:
        """Train each way with each seed; scores, and differences of pairs."""
        scores: dict[str, dict[str, Path]] = {}
        for seed in range(1, self.seeds + 1):
            for name, of_way in ways.items():
                changes = [*of_way, f"seed={seed}"]
                proposed = f"{part}-{name.replace(', ', '-').replace(' ', '_')}-{seed}"
                slug = self.slugs.setdefault(tuple(changes), proposed)
                made = self.contrast(slug, changes)
                scores.setdefault(name, {})[str(seed)] = self.scored(slug, made["run"])
        found: Measured = {"scores": {}, "differences": {}}
        for name, of in scores.items():
            found["scores"][name] = {seed: means(folder) for seed, folder in of.items()}
            say(f"{part}, {name}: " + ", ".join(f"{one['mean']:.4f}" for one in found["scores"][name].values()))
        for a, b in pairs:
            found["differences"][f"{a} - {b}"] = {seed: differ(scores[a][seed], scores[b][seed]) for seed in scores[a]}
            say(f"{part}, {a} - {b}: " + "; ".join(map(shown, found["differences"][f"{a} - {b}"].values())))
        return found

    def scored(self, name: str, model: str) -> Path:
        """The folder of a model's results on the dev samples; a model is scored once, under its first name."""
        name = self.names.setdefault(model, name)
        out = self.out / "scores" / name
        made = self.kept.take(
            f"score {name}",
            lambda: self.command("eval", model, "--suite", str(self.out / "dev.yaml"), "--out", str(out)),
        )
        return Path(made["folder"])

    def soup(self) -> Measured:
        """Three mixtures from one start, their mean, and one run with their minutes."""
        start = f"model.start={self.adapted('ul2')['run']}"
        first = self.finetuned("prefinetune", self.steps_of["prefinetune"], [start])
        begun, steps = f"model.start={first['run']}", self.steps_of["finetune"]
        runs = {
            name: self.finetuned(f"finetune-{name}", steps, [begun, *self.mixture(weights)])
            for name, weights in self.plan["mixtures"].items()
        }
        pooled = {source: 1 for weights in self.plan["mixtures"].values() for source in weights}
        runs["pooled"] = self.finetuned("finetune-pooled", steps * len(runs), [begun, *self.mixture(pooled)])
        ingredients = [made["run"] for name, made in runs.items() if name != "pooled"]
        made = self.kept.take(
            "soup", lambda: self.command("soup", *ingredients, "--out", str(self.out / "soup"), "--control")
        )
        models = {name: run["run"] for name, run in runs.items()} | {
            "start": first["run"],
            "soup": str(self.out / "soup"),
            "control": str(self.out / "soup-control"),
        }
        folders = {name: self.scored(f"soup-{name}", model) for name, model in models.items()}
        scores = {name: means(folder) for name, folder in folders.items()}
        differences = {f"soup - {name}": differ(folders["soup"], folders[name]) for name in folders if name != "soup"}
        one_each = averaged([load_result(folders[name]) for name in self.plan["mixtures"]])
        differences["soup - mean of its ingredients"] = between(load_result(folders["soup"]), one_each)
        for name, one in scores.items():
            say(f"soup, {name}: {one['mean']:.4f}")
        for name, one in differences.items():
            say(f"{name}: {shown(one)}")
        geometry = {key: made.get(key) for key in ("norm", "shrinkage", "cosines")}
        return {"scores": scores, "differences": differences, "geometry": geometry}

    def finetuned(self, name: str, steps: int, changes: list[str]) -> Measured:
        """Steps of full training."""
        return self.run(name, 1, [*self.plan["finetune"], f"stages.0.budget={{steps: {steps}}}", *changes])

    def mixture(self, weights: dict[str, float]) -> list[str]:
        """Weights of all sources; 0 for what a mixture leaves out."""
        return [f"stages.0.data.{n}.weight={weights.get(name, 0)}" for n, name in enumerate(self.plan["weights"])]

    def quantize(self) -> Measured:
        """After rounding alone, after training for it, and after the same steps without rounding."""
        model = self.model or str(self.out / "soup")
        folders = {"raw": self.scored("quantize-raw", model)}
        made = {}
        plain = self.run_steps("plain", model, [])
        folders["plain steps"] = self.scored("quantize-plain", plain["run"])
        for scheme in SCHEMES:
            for name, source, changes in (
                ("rounded", model, None),
                ("plain steps, rounded", plain["run"], None),
                ("trained for it", model, [f"stages.0.quantize={{scheme: {scheme}}}"]),
            ):
                slug = f"{scheme} {name}".replace(", ", "-").replace(" ", "_")
                if changes is None:
                    out = self.out / "quantized" / slug
                    made[slug] = self.kept.take(slug, lambda s=source, o=out, c=scheme: self.rounded(s, c, o))  # type: ignore[misc]
                    target = str(out)
                else:
                    trained = self.run_steps(slug, model, changes)
                    made[slug], target = without_run(trained), trained["run"]
                folders[f"{scheme} {name}"] = self.scored(f"quantize-{slug}", target)
        pairs = [(name, "raw") for name in folders if name != "raw"]
        pairs += [
            (f"{scheme} trained for it", f"{scheme} {other}")
            for scheme in SCHEMES
            for other in ("rounded", "plain steps, rounded")
        ]
        found: Measured = {
            "scores": {name: means(folder) for name, folder in folders.items()},
            "differences": {f"{a} - {b}": differ(folders[a], folders[b]) for a, b in pairs},
            "seconds": {name: one.get("seconds") for name, one in made.items()} | {"plain": plain["seconds"]},
        }
        for name, one in found["scores"].items():
            say(f"{name}: {one['mean']:.4f}")
        for name, one in found["differences"].items():
            say(f"{name}: {shown(one)}")
        return found

    def rounded(self, source: str, scheme: str, out: Path) -> Measured:
        """A model rounded to a scheme's grid."""
        return self.command("quantize", source, "--scheme", scheme, "--out", str(out))

    def run_steps(self, name: str, model: str, changes: list[str]) -> Measured:
        """Steps at a tenth of finetuning's rate, with the model's own vectors as the teacher."""
        rate = "{learning_rate: 5.0e-6, warmup_steps: 5, schedule: linear}"
        terms = "[{kind: nce, hardness: 0}, {kind: matching, teacher: " + model + ", weight: 10}]"
        common = [
            f"model.start={model}",
            f"stages.0.optimizer={rate}",
            f"stages.0.task={{temperature: 0.05, hard_negatives: 0, terms: {terms}}}",
        ]
        return self.finetuned(f"steps-{name}", self.steps, [*common, *changes])


def means(folder: Path) -> Measured:
    """Mean nDCG@10 of each suite, and the mean over the suites."""
    tasks = {task: one[METRIC] for task, one in load_result(folder).tasks.items()}
    return {"mean": sum(tasks.values()) / len(tasks), **tasks}


def averaged(results: list[Result]) -> Result:
    """The mean of several models' scores of each query, as one result."""
    first = results[0]
    per_query = {
        task: {
            query: {METRIC: sum(one.per_query[task][query][METRIC] for one in results) / len(results)}
            for query in queries
        }
        for task, queries in first.per_query.items()
    }
    prints = sha256_text(*(str(one.settings["model_fingerprint"]) for one in results))
    return Result("mean of ingredients", first.suite, per_query, first.settings | {"model_fingerprint": prints[:16]})


def differ(a: Path, b: Path) -> Measured:
    """A minus B, paired by query, each suite counting once."""
    return between(load_result(a), load_result(b))


def between(a: Result, b: Result) -> Measured:
    """The same of two results."""
    found = compare(a, b, METRIC, allow_different_settings=True)
    return {
        "difference": found.difference,
        "interval": [found.interval.low, found.interval.high],
        "p": found.test.p,
        "verdict": found.verdict.word,
    }


def shown(found: Measured) -> str:
    """A difference for a person."""
    low, high = found["interval"]
    return f"{found['difference']:+.4f} [{low:+.4f}, {high:+.4f}], p = {found['p']:.4f}"


if __name__ == "__main__":
    as_program(main)
