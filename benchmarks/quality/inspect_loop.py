"""Does the loop of `gemma4vec inspect` hold on a real suite: slice, confirmation, remedy, control arm, verification?

    python -m benchmarks.quality.inspect_loop DATA --out DIR [--suite xquadr_de] [--steps 20] [--seeds 0 1]

DATA holds `retrieval/NAME` (suites in BEIR's layout) and `train/NAME.jsonl.gz` (rows). Only commands are used that a
person would type, one after the other:

    train           a small base on the rows of --train, once for each seed
    inspect         the first seed's run, beside BM25: slices of the open half
    inspect confirm slices in their order, --open at most; the first one that is confirmed, and for which one of
                    --remedies is offered, is treated. Where none is confirmed, the strongest one that was not opened is
                    treated, and the result says so
    inspect remedy  recipes with a claim, and control arms
    train           the first of --remedies that is offered, and its control arm, with the same seeds
    inspect verify  once, the seeds of each arm together

Whichever way it falls, the result has every step: figures, rules and names of sources, no text. All arms have the same
number of steps, so that a busy machine changes no figure. What is done stays in DIR (runs and the ledger below
DIR/home); the same command goes on where it was stopped, and a finished run is not trained again.
"""

import argparse
import os
from pathlib import Path

from benchmarks.shared.commands import Done, Found, ask, command, small_recipe
from benchmarks.shared.record import RESULTS, as_program, say, write_result
from gemma4vec.errors import InputError
from gemma4vec.files import write_json

REMEDIES = ("reweight", "add_source", "mine_negatives", "objective", "architecture")
PLACES = ("data", "out", "results")  # arguments that no figure depends on


def main() -> int:
    arguments = parse_arguments()
    os.environ["GEMMA4VEC_HOME"] = str(arguments.out.absolute() / "home")
    settings = {key: value for key, value in vars(arguments).items() if key not in PLACES}
    done = Done(arguments.out / "loop.json", settings)
    recipe = arguments.out / "recipe.json"  # JSON is YAML
    write_json(recipe, recipe_of(arguments))
    runs = {"before": train_arm("before", str(recipe), arguments.seeds, done)}
    inspected = done.step("inspected", lambda: inspect(runs["before"][0], arguments))
    chosen = choose(inspected, arguments, done)
    outcome: Found = {"inspected": shown_inspection(inspected), **chosen, "verified": None}
    remedy = chosen["remedy"]
    if remedy is not None:
        seeds = control_seeds(remedy, arguments.seeds)
        treated = f"{remedy['name']}-{remedy['slice']}"  # another remedy is another job
        runs["remedy"] = train_arm(treated, remedy["recipe"], arguments.seeds, done)
        runs["control"] = train_arm(f"{treated}-control", remedy["control_recipe"], seeds, done)
        outcome["verified"] = done.step("verified", lambda: verify(runs, arguments))
        outcome["remedy"] = {key: value for key, value in remedy.items() if not key.endswith("recipe")}
    trained = {arm: [shown_run(one) for one in made] for arm, made in runs.items()}
    outcome["summary"] = summary(outcome)
    say(outcome["summary"])
    write_result("inspect_loop", {"settings": settings, "runs": trained, **outcome}, arguments.results)
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/ and retrieval/")
    parser.add_argument("--out", type=Path, required=True, help="folder of what is done")
    parser.add_argument("--suite", default="xquadr_de", help="name below retrieval/")
    parser.add_argument(
        "--train", nargs="+", default=["wikiqa_train", "selqa_dev", "tldr_de", "gesetze_de"], help="names below train/"
    )
    parser.add_argument("--max-rows", type=int, default=4000, help="first rows of each source")
    parser.add_argument("--offer", nargs="*", default=[], help="names below train/ that a remedy may add")
    parser.add_argument("--base", default="bundled:gemma-3-270m")
    parser.add_argument("--layers", type=int, default=3, help="the base's first layers alone")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rows", type=int, default=32, help="rows in a batch")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--open", type=int, default=3, help="most slices to open for one that is confirmed")
    parser.add_argument("--remedies", nargs="+", choices=REMEDIES, default=["reweight", "objective"])
    parser.add_argument("--times", type=int, default=3, help="how often a re-weighted row is read")
    parser.add_argument("--effect", type=float, help="gain to claim; by default half of the gap")
    parser.add_argument("--margin", type=float, default=0.01, help="largest loss elsewhere that is accepted")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the recipe")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    return parser.parse_args()


def recipe_of(arguments: argparse.Namespace) -> Found:
    """The recipe of the model before any remedy: short texts, a small base, a budget in steps."""
    data = [
        {"name": name, "path": str(rows_file(arguments.data, name)), "max_rows": arguments.max_rows}
        for name in arguments.train
    ]
    return small_recipe("loop", data, arguments, max_tokens=96)


def rows_file(data: Path, name: str) -> Path:
    """A file of rows by its name below the data folder."""
    path = data / "train" / f"{name}.jsonl.gz"
    if not path.is_file():
        raise InputError(f"{path} is missing; name files below {data / 'train'} without .jsonl.gz")
    return path.resolve()


def train_arm(arm: str, recipe: str, seeds: list[int], done: Done) -> list[Found]:
    """A run of each seed; one that was stopped goes on (`--job`)."""
    return [done.step(f"{arm}-{seed}", lambda seed=seed: train_one(arm, recipe, seed, done)) for seed in seeds]


def train_one(arm: str, recipe: str, seed: int, done: Done) -> Found:
    changes = [] if arm != "before" else done.settings["set"]
    return {"seed": seed, **command("train", recipe, *changes, "--seed", str(seed), "--job", f"{arm}-{seed}")}


def inspect(run: Found, arguments: argparse.Namespace) -> Found:
    suite = arguments.data / "retrieval" / arguments.suite
    return command("inspect", run["run"], "--suite", str(suite.resolve()), "--against", "bm25")


def choose(inspected: Found, arguments: argparse.Namespace, done: Done) -> Found:
    """Open slices until one is confirmed that a remedy is offered for; what came of each, and the remedy."""
    paired = [one for one in inspected["slices"] if one["view"] == "paired"]
    opened: list[Found] = []
    tried: list[Found] = []
    for one in paired[: arguments.open]:
        found = done.step(f"confirm-{one['id']}", lambda one=one: ask("inspect", "confirm", one["id"]))
        opened.append({"id": one["id"], "rule": one["rule"], **kept_of_confirmation(found)})
        if found.get("verdict") == "confirmed":
            tried.append(write_remedy(one, True, arguments, done))
            if tried[-1]["chosen"]:
                break
    else:
        left = paired[len(opened) :]
        if left and not any(one.get("verdict") == "confirmed" for one in opened):
            tried.append(write_remedy(left[0], False, arguments, done))
    treated = next((one for one in tried if one["chosen"]), None)
    return {
        "opened": opened,
        "remedies": [{key: value for key, value in one.items() if key != "chosen"} for one in tried],
        "remedy": treated["chosen"] if treated else None,
    }


def write_remedy(one: Found, confirmed: bool, arguments: argparse.Namespace, done: Done) -> Found:
    """Recipes for a slice: what was offered, and the one to train (`chosen`)."""
    out = arguments.out.absolute() / "remedies" / one["id"]
    words = ["inspect", "remedy", one["id"], "--out", str(out), "--times", str(arguments.times)]
    words += ["--margin", str(arguments.margin)]
    words += [] if arguments.effect is None else ["--effect", str(arguments.effect)]
    for name in arguments.offer:
        words += ["--source", str(rows_file(arguments.data, name))]
    found = done.step(f"remedy-{one['id']}", lambda: ask(*words))
    about = {"slice": one["id"], "rule": one["rule"], "confirmed": confirmed}
    if "refused" in found:
        return {**about, **found, "chosen": None}
    claim = {key: found["claim"][key] for key in ("slice", "metric", "smallest_effect", "not_worse_elsewhere")}
    keys = ("name", "words", "why_not", "matching", "rows", "share")
    by_name = {offer["name"]: offer for offer in found["remedies"]}
    named = next((name for name in arguments.remedies if by_name[name]["recipe"]), None)
    return {
        **about,
        "claim": claim,
        "shows": found["shows"],
        "sources": found["sources"],
        "other_sources": found["other_sources"],
        "offers": [{key: offer[key] for key in keys} for offer in found["remedies"]],
        "notes": found["notes"],
        "chosen": None if named is None else {**about, **chosen_of(by_name[named])},
    }


def chosen_of(offer: Found) -> Found:
    keys = ("name", "words", "matching", "rows", "share", "recipe", "control_recipe")
    return {**{key: offer[key] for key in keys}, "same_recipe_control": offer["control"] is None}


def control_seeds(remedy: Found, seeds: list[int]) -> list[int]:
    """A control arm that is the recipe as it is needs seeds of its own, or it would be the models before."""
    return [seed + 1 + max(seeds) - min(seeds) for seed in seeds] if remedy["same_recipe_control"] else seeds


def verify(runs: dict[str, list[Found]], arguments: argparse.Namespace) -> Found:
    """Ask the sealed half once; names of runs are left out."""
    words = ["inspect", "verify", *(one["run"] for one in runs["remedy"])]
    words += [word for one in runs["before"] for word in ("--against", one["run"])]
    words += [word for one in runs["control"] for word in ("--control", one["run"])]
    found = ask(*words)
    return {key: value for key, value in found.items() if key not in ("claim", "runs", "against", "control")}


def kept_of_confirmation(found: Found) -> Found:
    keys = ("refused", "verdict", "gap", "low", "high", "p", "p_family", "opened", "n_inside", "n_outside")
    return {key: found[key] for key in (*keys, "detectable", "proposed_gap") if key in found}


def shown_inspection(found: Found) -> Found:
    """Figures of an inspection: scores, halves, slices, kinds of failure, what the training data touches."""
    keys = ("id", "rule", "view", "n", "n_sealed", "inside", "outside", "gap", "p_max_t", "tried", "can_show")
    return {
        "suite": {key: found["suite"][key] for key in ("name", "fingerprint")},
        "metric": found["metric"],
        "queries": found["queries"],
        "documents": found["documents"],
        "discovery_means": dict(zip(("model", "against"), found["discovery_means"].values(), strict=False)),
        "failures": found["failures"],
        "slices": [{key: one[key] for key in keys} for one in found["slices"]],
        "in_training": found.get("in_training"),
    }


def shown_run(run: Found) -> Found:
    return {key: run[key] for key in ("seed", "run_id", "tokens", "seconds") if key in run}


def summary(outcome: Found) -> str:
    """One line on how it fell."""
    opened = ", ".join(f"{one['rule']} {one.get('verdict', 'refused')}" for one in outcome["opened"]) or "no slice"
    remedy, verified = outcome["remedy"], outcome["verified"]
    if remedy is None:
        return f"{opened}; no remedy was trained"
    share = "" if remedy["share"] is None else f", {remedy['share']:.1%} of the rows match"
    treated = f"{remedy['name']} for {remedy['rule']}{'' if remedy['confirmed'] else ' (not confirmed)'}{share}"
    if "refused" in verified:
        return f"{opened}; {treated}; not verified: {verified['refused']}"
    inside = verified["inside"]
    gain = f"{inside['mean']:+.3f} on {inside['n']} sealed queries, shows gains from {verified['detectable']:.3f}"
    return f"{opened}; {treated}; {verified['verdict']}: {gain}"


if __name__ == "__main__":
    as_program(main)
