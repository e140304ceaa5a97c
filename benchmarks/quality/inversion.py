"""Gemma-Embed at the size of a 270M model: three phases, vectors back to texts, and other queries on the way.

    python -m benchmarks.quality.inversion DATA --out DIR [--quick] [--parts curve phases ...]

DATA holds `train/NAME.jsonl.gz` (rows) and `retrieval/NAME` (suites in BEIR's layout), as for quality.py; the plan
`quality/inversion_270m.yaml` names those that are used, and all sizes. Rows are without what any suite holds.

- phases: the phases of gemma_embed/three_phases on short texts, scored after each on samples of three dev suites; the
  same without the head (native width), and with `reconstruct`, whose nDCG@10 must be no worse by more than .01.
- curve: a decoder of the invertible encoder and one of the plain one. Weights kept on the way give the curve: one text
  for each vector of held-out texts, beside nearest training text and ridge, paired with p, for each source with enough
  texts; exact matches of short texts; then the best of 16 texts with 5 rounds of edits.
- ablations: candidates 1, 4, 16 and edits 0, 5; soft tokens 1, 4, 8 and noise 0, 8 degrees, at equal steps.
- fanout: the table of `gemma4vec fanout` with the decoder, and with a suggester that is distilled from walks between
  training rows, on samples of the dev suites.
- speed: 200 vectors with 16 texts each, decoded and embedded again; 60 seconds are wanted.
- deception: F1 of the decoder on other texts' vectors and on one constant vector, beside the floor of frequent words;
  and of two decoders of equal steps, one of which was also trained on the held-out texts: it must score higher.

All budgets are steps: a busy machine takes longer and gives the same. What is done stays in DIR, and the same command
goes on where it was stopped, a training from its last checkpoint. `--quick` takes a tiny random base and few texts.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import yaml

from benchmarks.gpu.models import tiny_base
from benchmarks.quality import inversion_data as data
from benchmarks.quality.quality import METRIC, Measured, Quality
from benchmarks.shared.record import RESULTS, as_program, say, write_result
from gemma4vec.evaluation.comparison.compare import compare
from gemma4vec.evaluation.results.result import Result, load_result
from gemma4vec.inversion.measures import split_words, token_set_f1
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.bases.resolve import resolve_base
from gemma4vec.model.inverter.decoder_folder import read_facts
from gemma4vec.text.text_hash import words_key
from gemma4vec.training.monitoring.weight_snapshots import checkpoint_name

ROOT = Path(__file__).parents[2]
PARTS = ("curve", "phases", "ablations", "fanout", "speed", "deception")
MARGIN = 0.01
SECONDS = 60.0  # wanted of `speed`
NEAREST, RIDGE = "cosine over nearest training text", "f1 over ridge to words"


def main() -> None:
    arguments = parse_arguments()
    work = Inversion(arguments)
    work.prepare()
    name = "inversion-quick" if arguments.quick else "inversion"
    measured: Measured = {"plan": work.plan, "data": work.kept.settings["files"]}
    for part in PARTS:
        if part in arguments.parts:
            started, processor = time.perf_counter(), os.times()
            measured[part] = getattr(work, f"measure_{part}")()
            used = sum(os.times()[:4]) - sum(processor[:4])
            say(f"{part}: {time.perf_counter() - started:,.0f} s, {used:,.0f} s of processors")
            write_result(name, measured, arguments.results)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/ and retrieval/")
    parser.add_argument("--plan", type=Path, default=ROOT / "benchmarks/quality/inversion_270m.yaml")
    parser.add_argument("--out", type=Path, required=True, help="folder of everything that is made")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--steps", nargs="+", default=[], metavar="NAME=N", help="other steps than the plan's")
    parser.add_argument("--quick", action="store_true", help="a tiny random base and few texts: whether it runs")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change of every training")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    arguments = parser.parse_args()
    arguments.peer = arguments.minutes = None
    return arguments


class Inversion(Quality):
    """The trainings and measurements of all parts, each kept when it is done."""

    def __init__(self, arguments: argparse.Namespace):
        tree = yaml.safe_load(arguments.plan.read_text(encoding="utf-8"))
        changes = tree.pop("quick")
        arguments.out.mkdir(parents=True, exist_ok=True)
        if arguments.quick:
            folder = arguments.out.resolve() / "base"
            tiny_base(Path(resolve_base(tree["base"]).path), folder)
            tree |= changes | {"base": str(folder)}
            tree["recipe"]["model"]["base"] = str(folder)
        for one in arguments.steps:
            name, _, number = one.partition("=")
            tree["steps"][name] = int(number)
        arguments.plan = arguments.out / "plan.yaml"
        arguments.plan.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
        super().__init__(arguments)
        self.steps: dict[str, int] = self.plan["steps"]

    def prepare(self) -> None:
        """Cleaned rows and all files that are made of them."""
        super().prepare()
        self.kept.take("files", self.write_files)
        self.kept.take("triplets", self.mine)

    def write_files(self) -> Measured:
        """Texts, phases' files, the suite to walk on, dev samples; their sizes."""
        clean = self.out / "clean"
        return {
            "texts": data.write_texts(clean, self.out, self.plan),
            "phases": data.write_phase_files(clean, self.out, self.plan),
            "walk": data.write_walk_suite(clean, self.out, self.plan),
            "samples": data.write_samples(self.data, self.out, self.plan),
        }

    def mine(self) -> Measured:
        """A negative for each paraphrase: BM25's candidates without the first ones, which are often right."""
        how = ("--bm25", "-n", "1", "--ranks", "10-100", "--choose", "draw")
        source, made = str(self.out / "paraphrases.jsonl"), str(self.out / "triplets.jsonl.gz")
        return self.command("data", "mine", source, "--out", made, *how)

    # Trainings

    def by_recipe(self, name: str, recipe: str, changes: Sequence[str]) -> Measured:
        """A training by a shipped recipe, or what it gave before."""
        settings = [f"model.base={self.plan['base']}", *changes, *self.overrides]
        runs = self.out / "runs" / name
        return self.kept.take(f"train {name}", lambda: self.go_on(runs, f"gemma_embed/{recipe}", settings))

    def encoder(self, way: str) -> Measured:
        """Three phases: `plain`, `native` (without a head) or `invertible`."""
        sources: list[Measured] = [
            {"name": "sentences", "source": "text", "path": str(self.out / "text.txt"), "pair_with_itself": True},
            {"name": "paraphrases", "source": "jsonl", "path": str(self.out / "triplets.jsonl.gz")},
            {"name": "queries", "source": "sqlite", "path": str(self.out / "queries.db"), "pair_with_itself": True},
        ]
        changes = ["model.head=null"] if way == "native" else []
        for number, source in enumerate(sources):
            stage = self.plan["phase_changes"] | {
                "data": [source],
                "optimizer": self.plan["phase_rates"][number],
                "budget": {"steps": self.steps["phase"]},
                "evaluation": {},
            }
            changes += [f"stages.{number}.{key}={json.dumps(value)}" for key, value in stage.items()]
        recipe = "three_phases_invertible" if way == "invertible" else "three_phases"
        return self.by_recipe(f"encoder-{way}", recipe, changes)

    def decoder(self, name: str, encoder: str, steps: int, **changes: Any) -> Measured:
        """A decoder of an encoder's query vectors; `changes` are of its task, `files` other texts than all."""
        files = changes.pop("files", None) or [self.out / "texts" / f"{one}.txt" for one in self.plan["weights"]]
        task = {"prefix_tokens": self.plan["prefix_tokens"], "sampled_vocabulary": self.plan["sampled_vocabulary"]}
        task |= {"held_out": self.plan["held_out"], "embedder": encoder, **changes}
        stage = self.plan["decoder_changes"] | {
            "data": [{"name": file.stem, "source": "text", "path": str(file)} for file in files],
            "budget": {"steps": steps},
            "evaluation": {"snapshot_at_shares": self.plan["shares"]} if name.startswith("decoder-") else {},
        }
        settings = [f"model.max_tokens={1 + task['prefix_tokens'] + self.plan['text_tokens']}"]
        settings += [f"stages.0.task.{key}={json.dumps(value)}" for key, value in task.items()]
        settings += [f"stages.0.{key}={json.dumps(value)}" for key, value in stage.items()]
        return self.by_recipe(name, "query_decoder", settings)

    def pair(self, way: str) -> tuple[str, str]:
        """(encoder, its decoder), trained."""
        encoder = self.encoder(way)["run"]
        return encoder, self.decoder(f"decoder-{way}", encoder, self.steps["decoder"])["run"]

    # Parts

    def measure_phases(self) -> Measured:
        """nDCG@10 after each phase, and differences of the last one."""
        found: Measured = {"scores": {}, "trained": {}}
        last: dict[str, Result] = {}
        for way in ("plain", "native", "invertible"):
            made = self.encoder(way)
            found["trained"][way] = {"tokens": made["tokens"], "seconds": made["seconds"]}
            run = made["run"]
            curve = self.kept.take(f"score {way}", lambda r=run: self.score_phases(r))  # type: ignore[misc]
            scores = []
            for one in curve["checkpoints"]:
                folder = RunFolder(Path(run)).evaluation(checkpoint_name(one["stage"], one["step"]), curve["suite"])
                last[way] = load_result(folder)
                scores.append({suite: values[METRIC] for suite, values in last[way].tasks.items()})
                scores[-1]["mean"] = one[METRIC]
            found["scores"][way] = scores
            say(f"{way}: after each phase " + ", ".join(f"{one['mean']:.4f}" for one in scores))
        for a, b in (("invertible", "plain"), ("plain", "native")):
            one = compare(last[a], last[b], METRIC, no_worse_than=MARGIN, allow_different_settings=True)
            test = one.no_worse
            found[f"{a} - {b}"] = {
                "difference": one.difference,
                "interval": [one.interval.low, one.interval.high],
                "p": one.test.p,
                "p_no_worse": None if test is None else test.p,
                "verdict": one.verdict.word,
            }
            say(f"{a} - {b}: {found[f'{a} - {b}']}")
        return found

    def score_phases(self, run: str) -> Measured:
        """nDCG@10 of the weights after each phase, on the dev samples."""
        return self.command("eval", run, "--checkpoints", "--suite", str(self.out / "dev.yaml"))

    def evaluate(self, encoder: str, decoder: str, each: int, *options: str) -> Measured:
        """What `invert --evaluate` finds on `each` held-out texts of each source that has so many."""
        files = data.held_out_files(self.out, self.plan, Path(decoder) / "model", each)
        words = [word for file in files for word in ("--evaluate", str(file))]
        setting = f"evaluate {Path(decoder).parent.name} {each} {' '.join(options)}"
        how = ("--max-texts", str(10**6), *options)
        return self.kept.take(setting, lambda: self.command("invert", encoder, "--decoder", decoder, *words, *how))

    def measure_curve(self) -> Measured:
        """The decoders' figures at each share of the steps, and the best of 16 texts with edits."""
        found: Measured = {}
        for way in ("invertible", "plain"):
            encoder, decoder = self.pair(way)
            made = self.kept.settings[f"train decoder-{way}"]
            found[way] = {"tokens": made["tokens"], "seconds": made["seconds"], "shares": {}}
            run = RunFolder(Path(decoder))
            found[way]["held_out"] = [dict(event) for event in run.events("held_out")]
            for share in self.plan["shares"]:
                step = max(1, round(share * self.steps["decoder"]))
                one = self.evaluate(encoder, decoder, self.plan["least_held_out"], "--n", "1", "--step", str(step))
                found[way]["shares"][str(share)] = one
                report(f"{way} after {step} steps", one)
            n, edit = max(self.plan["candidates"]), max(self.plan["edits"])
            found[way]["best"] = self.best(encoder, decoder, n, edit)
            report(f"{way}, best of {n} with {edit} rounds of edits", found[way]["best"])
        return found

    def best(self, encoder: str, decoder: str, n: int, edit: int) -> Measured:
        """The best of `n` texts after rounds of edits, on fewer texts."""
        return self.evaluate(encoder, decoder, self.plan["best_of"], "--n", str(n), "--edit", str(edit))

    def measure_ablations(self) -> Measured:
        """Searches with the trained decoder, and short trainings."""
        encoder, decoder = self.pair("invertible")
        found: Measured = {"search": {}, "trained": {}}
        for n in self.plan["candidates"]:
            for edit in self.plan["edits"]:
                found["search"][f"{n} texts, {edit} edits"] = self.best(encoder, decoder, n, edit)
                report(f"{n} texts, {edit} rounds of edits", found["search"][f"{n} texts, {edit} edits"])
        ways: dict[str, Measured] = {f"{tokens} soft tokens": {"prefix_tokens": tokens} for tokens in (1, 4, 8)}
        ways["no noise"] = {"noise_degrees": 0}
        for name, changes in ways.items():
            made = self.decoder(f"ablation-{name.replace(' ', '_')}", encoder, self.steps["ablation"], **changes)
            each = self.plan["least_held_out"]
            found["trained"][name] = self.evaluate(encoder, made["run"], each, "--n", "1")
            report(name, found["trained"][name])
        return found

    def measure_fanout(self) -> Measured:
        """The tables of the dev samples, with a suggester that learned from walks between training rows."""
        encoder, decoder = self.pair("invertible")
        pairs, log = self.out / "pairs.jsonl.gz", self.out / "log.txt"
        data.write_lines(log, data.all_texts(self.out, self.plan))
        how = [f"--{key}={value}" for key, value in self.plan["fanout"]["choices"].items()]
        with_decoder = ["--decoder", decoder, "--log", str(log), *how]
        walk = ["fanout", encoder, "--suite", str(self.out / "walk"), "--target", "gold", "--pairs", str(pairs)]
        walked = self.kept.take("walks", lambda: self.command(*walk, *with_decoder))
        least = 2 * self.plan["suggester_changes"]["batch"]["rows"]
        suggester = ["--suggester", self.suggester(pairs)] if walked["pairs"] >= least else []
        if not suggester:
            say(f"fanout: {walked['pairs']} pairs of walks, {least} are needed to train a suggester: it is left out")
        found: Measured = {"pairs": walked["pairs"], "suites": {}}
        for name in (one["suite"] for one in self.plan["dev"]):
            suite = ("--suite", str(self.out / "samples" / name))
            one = self.kept.take(
                f"fanout {name}",
                lambda s=suite: self.command("fanout", encoder, *s, *with_decoder, *suggester),  # type: ignore[misc]
            )
            found["suites"][name] = one
            say(f"fanout on {name}: {one['sentence']}")
            for row in one["rows"]:
                gain, over = row["gain"], row["best_minus_noise"]
                best = "" if over is None else f"; best over noise's {shown(over)}"
                log = "" if row["gain_over_log"] is None else f"; over the log's {shown(row['gain_over_log'])}"
                say(f"  {row['method']}: kept {row['kept']:.1f}, gain {shown(gain)}{log}{best}")
        return found

    def suggester(self, pairs: Path) -> str:
        """A suggester, distilled from the walks' pairs."""
        changes = self.plan["suggester_changes"] | {
            "data": [{"name": "walks", "source": "jsonl", "path": str(pairs)}],
            "task.sampled_vocabulary": self.plan["sampled_vocabulary"],
            "budget": {"steps": self.steps["suggester"]},
        }
        settings = [f"stages.0.{key}={json.dumps(value)}" for key, value in changes.items()]
        return str(self.by_recipe("suggester", "suggester", settings)["run"])

    def measure_speed(self) -> Measured:
        """Seconds of texts for many vectors, decoded and embedded again, in a process of its own."""
        encoder, decoder = self.pair("invertible")
        sizes = self.plan["speed"]
        texts = data.draw(data.all_texts(self.out, self.plan), sizes["vectors"])
        return self.kept.take("speed", lambda: time_decoding(encoder, decoder, texts, sizes["n"]))

    def measure_deception(self) -> Measured:
        """What must not score, beside the floor, and what must score too well."""
        encoder, decoder = self.pair("invertible")
        each = self.plan["least_held_out"]
        whole = self.evaluate(encoder, decoder, each, "--n", "1", "--step", str(self.steps["decoder"]))
        files = data.held_out_files(self.out, self.plan, Path(decoder) / "model", each)
        texts = [line for file in files for line in file.read_text(encoding="utf-8").split("\n") if line]
        constant = self.constant(encoder, decoder)
        memory = self.plan["memory"]
        few = data.draw(data.all_texts(self.out, self.plan), memory["texts"])
        file = data.write_lines(self.out / "few.txt", few)
        steps = max(1, memory["texts"] * memory["repeats"] // self.plan["decoder_changes"]["batch"]["rows"])
        honest = self.decoder("memory-honest", encoder, steps, files=[file])["run"]
        leaking = self.decoder("memory-leaking", encoder, steps, files=[file], held_out=0)["run"]
        hidden = set(read_facts(Path(honest) / "model").held_out)
        asked = [text for text in few if words_key(text) in hidden]
        f1 = {name: self.f1(name, encoder, run, asked) for name, run in (("honest", honest), ("leaking", leaking))}
        rows = whole["rows"]
        found = {
            "decoder": rows["decoder"]["f1"],
            "other texts' vectors": rows["other texts' vectors"]["f1"],
            "most frequent words": rows["most frequent words"]["f1"],
            "constant vector": mean(token_set_f1(split_words(constant), split_words(text)) for text in texts),
            "held out": {"texts": len(asked), "steps": steps, **f1},
        }
        say(f"deception: {found}")
        return found

    def constant(self, encoder: str, decoder: str) -> str:
        """What the decoder writes for the mean of its training vectors, whatever the text."""
        vectors_Nd = np.load(Path(decoder) / "model" / "vectors.npy", allow_pickle=False).astype(np.float32)
        file = self.out / "constant.npy"
        np.save(file, vectors_Nd.mean(axis=0, keepdims=True), allow_pickle=False)
        how = ("--decoder", decoder, "--vectors", str(file), "--normalize", "--n", "1")
        one = self.kept.take("constant vector", lambda: self.command("invert", encoder, *how))
        return str(one["rows"][0]["text"])

    def f1(self, name: str, encoder: str, decoder: str, texts: Sequence[str]) -> float:
        """Mean F1 of one text a vector, whether the decoder was trained on it or not."""
        asked = [word for text in texts for word in ("--text", text)]
        one = self.kept.take(
            f"f1 {name}", lambda: self.command("invert", encoder, "--decoder", decoder, *asked, "--n", "1")
        )
        return mean(token_set_f1(split_words(row["text"]), split_words(row["given"])) for row in one["rows"])


def time_decoding(encoder: str, decoder: str, texts: Sequence[str], n: int) -> Measured:
    """Seconds, and seconds of processors, of `n` texts for each text's vector."""
    from gemma4vec.inversion.decoder import VectorDecoder
    from gemma4vec.inversion.invert import BLOCK, Inverter, Settings
    from gemma4vec.model.inference.embedder import Embedder

    embedder = Embedder.load(encoder)
    inverter = Inverter(VectorDecoder.load(decoder, embedder), embedder, Settings(n))
    vectors_Nd = embedder.encode_query(list(texts))
    inverter.best(vectors_Nd[:1])  # what is made once
    started, processor, different = time.perf_counter(), time.process_time(), 0
    for start in range(0, len(vectors_Nd), BLOCK):
        different += sum(map(len, inverter.ranked(vectors_Nd[start : start + BLOCK], first=start)))
    found = {
        "vectors": len(texts),
        "n": n,
        "different": different,
        "seconds": time.perf_counter() - started,
        "processor_seconds": time.process_time() - processor,
        "wanted": SECONDS,
    }
    say(f"speed: {found}")
    return found


def shown(one: Measured) -> str:
    """A figure with its interval."""
    return f"{one['mean']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]"


def report(name: str, one: Measured) -> None:
    """The figures that count, for all texts and for each source."""
    row = one["rows"]["decoder"]
    figures = ", ".join(f"{measure} {row[measure]['mean']:.3f}" for measure in ("f1", "exact", "cosine"))
    say(f"{name}: {one['texts']} texts, {figures}")
    short = one["short"]
    if "rows" in short:
        exact = short["rows"]["decoder"]["exact"]["mean"]
        say(f"  exact at up to {short['tokens']} tokens: {exact:.3f} of {short['texts']}")
    for source, part in {"all": one, **one["parts"]}.items():
        found = [(key, part["differences"][key]) for key in (NEAREST, RIDGE) if key in part["differences"]]
        say(f"  {source}: " + "; ".join(f"{key} {shown(value)}, p = {value['p']:.4f}" for key, value in found))


if __name__ == "__main__":
    as_program(main)
