"""The place where inputs run: a tiny base, rows and tables, suites, trained runs, a ledger, an index, all tiny.

Everything is made by the commands themselves, in the process that later forks a child for each input, so that what they
import is there. Names of runs come from a counter, so that a kept failure names the same folders the next time.
"""

import contextlib
import gzip
import io
import json
import os
import random
import secrets
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import yaml

from fuzzing.inputs import Json
from fuzzing.sandbox import Sandbox, set_environment

VERBS = ("read", "write", "sort", "open")
THINGS = ("file", "tree")
TRAIN = ("stages.0.layout.compile=false",)


def recipe() -> dict[str, Json]:
    """Two steps on the tiny base."""
    return {
        "name": "tiny",
        "model": {
            "base": "base",
            "dtype": "fp32",
            "max_tokens": 40,
            "readout": {"name": "mean"},
            "lora": {"rank": 2, "alpha": 4},
        },
        "stages": [
            {
                "name": "contrast",
                "data": [{"name": "rows", "path": "rows.jsonl"}],
                "task": {"temperature": 0.1, "hard_negatives": 1},
                "batch": {"rows": 4},
                "layout": {"row_tokens": 48, "tokens_per_forward": 192, "compile": False},
                "optimizer": {"learning_rate": 0.01, "warmup_steps": 1},
                "budget": {"steps": 2},
                "evaluation": {"every_steps": 1, "snapshot_every_steps": 1, "suite": "suite", "checkpoint_seconds": 0},
            }
        ],
        "seed": 1,
    }


def make(sandbox: Sandbox, with_models: bool) -> None:
    """Fill `sandbox.template`; without models it needs no torch and a second at most.

    Raises:
        SystemExit: a command that should work does not.
    """
    shutil.rmtree(sandbox.template, ignore_errors=True)
    sandbox.fresh(())
    before, kept = Path.cwd(), dict(os.environ)
    try:
        set_environment(sandbox.environment())
        os.chdir(sandbox.place)
        write_data()
        if with_models:
            with _counted_names():
                write_models()
    finally:
        os.chdir(before)
        set_environment(dict.fromkeys(os.environ))
        os.environ.update(kept)
    shutil.rmtree(sandbox.place / "tmp")
    shutil.rmtree(sandbox.place / "home")
    sandbox.place.rename(sandbox.template)


def write_data() -> None:
    """Rows, tables, suites, recipes, a plan and code."""
    draw = random.Random(2)
    rows = [_row(draw, verb, thing) for verb in VERBS for thing in THINGS]
    _write_lines("rows.jsonl", rows)
    Path("rows.jsonl.gz").write_bytes(gzip.compress(Path("rows.jsonl").read_bytes(), mtime=0))
    Path("texts.txt").write_text(
        "".join(f"{verb} the {thing}\n" for verb in VERBS for thing in THINGS), encoding="utf-8"
    )
    _write_tables(
        [(f"{verb} a {thing}", f"def {thing}_{verb}", f"def {thing}_no") for verb in VERBS for thing in THINGS]
    )
    for name in ("suite", "other"):
        _write_suite(Path(name), name)
    Path("final").mkdir()
    shutil.copytree("suite", "final", dirs_exist_ok=True)
    Path("final/suite.yaml").write_text("name: final\nrole: final\n", encoding="utf-8")
    pairs = "".join(f"test\t{number % 6}\t{row['query']}\tthe {number}\n" for number, row in enumerate(rows))
    Path("pairs.tsv").write_text("split\tscore\tsentence1\tsentence2\n" + pairs, encoding="utf-8")
    Path("list.yaml").write_text(
        yaml.safe_dump({"name": "both", "role": "dev", "suites": ["suite", {"suite": "other", "name": "second"}]}),
        encoding="utf-8",
    )
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe(), sort_keys=False), encoding="utf-8")
    _helper_folders()
    from small_documents import write_animals, write_every_kind
    from tiny_code import write_code

    write_code(Path("code"), packages=4)
    write_animals(write_every_kind(Path("docs")), files=4)
    Path("queries.tsv").write_text("how to set a proxy\tguide/proxy.md\nbread\tviper.md#the-viper\n", encoding="utf-8")
    _write_debian(Path("apt"))
    _write_plan()
    _write_steps()
    run("data", "check", "rows.jsonl", "--against", "suite", "--drop", "drop.jsonl")
    shutil.rmtree("runs", ignore_errors=True)
    from gemma4vec.recipe.load import dump_recipe, load_recipe

    Path("whole.yaml").write_text(dump_recipe(load_recipe("recipe.yaml")), encoding="utf-8")


def _row(draw: random.Random, verb: str, thing: str) -> dict[str, Json]:
    other = THINGS[THINGS.index(thing) - 1]
    return {
        "query": f"{verb} the {thing}",
        "pos": [{"text": f"def {thing}_{verb} " + "of " * draw.randrange(4), "title": thing}],
        "neg": [f"def {other}_{verb} here"],
        "group": thing,
        "task": "code",
        "scores": {"pos": [round(draw.uniform(4, 8), 2)], "neg": [round(draw.uniform(0, 3), 2)]},
    }


def _write_lines(name: str, values: list[dict[str, Json]]) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")


def _write_tables(triplets: list[tuple[str, str, str]]) -> None:
    import pyarrow
    import pyarrow.parquet

    Path("tables").mkdir()
    names = ("anchor", "positive", "negative")
    for suffix, separator in (("csv", ","), ("tsv", "\t")):
        lines = [names, *triplets]
        Path(f"tables/rows.{suffix}").write_text(
            "".join(separator.join(line) + "\n" for line in lines), encoding="utf-8"
        )
    table = pyarrow.table({name: [row[at] for row in triplets] for at, name in enumerate(names)})
    pyarrow.parquet.write_table(table, "tables/rows.parquet")
    Path("tables/hub").mkdir()
    pyarrow.parquet.write_table(table, "tables/hub/train-00000-of-00001.parquet")
    Path("tables/arrow").mkdir()
    with pyarrow.ipc.new_stream("tables/arrow/data-00000-of-00001.arrow", table.schema) as stream:
        stream.write_table(table)
    Path("tables/arrow/state.json").write_text(
        json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": "train"})
    )
    Path("tables/arrow/dataset_info.json").write_text(json.dumps({"features": {}, "splits": {}}))
    with contextlib.closing(sqlite3.connect("tables/texts.sqlite")) as connection:
        connection.execute("CREATE TABLE texts (id INTEGER, text TEXT)")
        connection.executemany("INSERT INTO texts VALUES (?, ?)", [(n, row[1]) for n, row in enumerate(triplets)])
        connection.commit()
    # A teacher's vectors of every text of rows.jsonl, in its three forms.
    texts = _texts_of_rows()
    draw = random.Random(3)
    vectors = [[round(draw.uniform(-1, 1), 3) for _ in range(4)] for _ in texts]
    pairs = list(zip(texts, vectors, strict=True))
    _write_lines("tables/vectors.jsonl", [{**text, "vector": list(vector)} for text, vector in pairs])
    columns = {key: [text.get(key, "") for text in texts] for key in ("text", "title")}
    pyarrow.parquet.write_table(pyarrow.table({**columns, "vector": vectors}), "tables/vectors.parquet")
    import numpy

    numpy.save("tables/array.npy", numpy.array(vectors, dtype="float32"))
    _write_lines("tables/array.jsonl", texts)


def _texts_of_rows() -> list[dict[str, Json]]:
    found: dict[tuple[str, str], dict[str, Json]] = {}
    for line in Path("rows.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for text in (row["query"], *row["pos"], *row["neg"]):
            whole: dict[str, Json] = text if isinstance(text, dict) else {"text": text}
            found[str(whole["text"]), str(whole.get("title", ""))] = whole
    return list(found.values())


def _write_suite(folder: Path, name: str) -> None:
    pairs = [(verb, thing) for verb in VERBS for thing in THINGS]
    _write_lines(
        str(folder / "corpus.jsonl"),
        [
            {"_id": f"d{n}", "title": thing, "text": f"{verb} {name}", "verb": verb}
            for n, (verb, thing) in enumerate(pairs)
        ],
    )
    _write_lines(
        str(folder / "queries.jsonl"),
        [{"_id": f"q{n}", "text": f"{verb} {'a' if n else 'the'} {thing}"} for n, (verb, thing) in enumerate(pairs)],
    )
    judged = "".join(f"q{n}\td{n}\t{1 + n % 2}\n" for n in range(len(pairs)))
    (folder / "qrels").mkdir()
    for split in ("test", "train"):
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged, encoding="utf-8")
    (folder / "suite.yaml").write_text(f"name: {name}\nrole: dev\ntokens: code\n", encoding="utf-8")


def _write_debian(folder: Path) -> None:
    folder.mkdir()
    entries = "".join(
        f"Package: tool{n}\nDescription-en: a tool number {n}\n It does {n} things.\nDescription-md5: {n:032x}\n\n"
        for n in range(3)
    )
    (folder / "debian_dists_stable_main_i18n_Translation-en").write_text(entries, encoding="utf-8")
    packages = "".join(
        f"Package: tool{n}\nDescription: a tool number {n}\nDescription-md5: {n:032x}\nTag: role::program\n\n"
        for n in range(3)
    )
    (folder / "debian_dists_stable_main_binary-amd64_Packages").write_text(packages, encoding="utf-8")


def _write_plan() -> None:
    plan: dict[str, Json] = {
        "name": "plan",
        "variables": {"suites": "."},
        "recipes": [
            "recipe.yaml",
            {"recipe": "recipe.yaml", "name": "last", "overrides": ["model.readout=last_token"]},
        ],
        "learning_rates": [0.01],
        "budget": {"rows": 8},
        "dev": [{"suite": "${suites}/suite", "max_queries": 4}],
        "final": [{"suite": "${suites}/other"}],
        "control": "recipe",
        "axes": {
            "temperature": {
                "recipes": ["last"],
                "values": {"low": ["stages.0.task.temperature=0.05"], "high": ["stages.0.task.temperature=0.2"]},
            }
        },
        "overrides": ["stages.*.evaluation.checkpoint_seconds=0", "stages.0.evaluation.every_steps=null"],
    }
    Path("plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False), encoding="utf-8")


def _write_steps() -> None:
    """A plan of steps that build on each other, and a recipe that denoises texts."""
    other: Any = recipe()
    other["name"] = "denoise"
    other["model"] |= {"attention": "bidirectional", "max_tokens": 40}
    other["stages"][0] |= {
        "task": {"kind": "ul2", "decoder": {"layers": "all"}, "sentinels": [chr(256 + n) for n in range(16)]},
        "evaluation": {},
    }
    other["stages"][0]["batch"] = {"rows": 4}
    Path("denoise.yaml").write_text(yaml.safe_dump(other, sort_keys=False), encoding="utf-8")
    steps: dict[str, Json] = {
        "name": "steps",
        "budget": {"minutes": 1},
        "suites": {"dev": [{"suite": "suite", "max_queries": 4}], "final": [{"suite": "other"}]},
        "lengths": [16],
        "steps": {
            "first": {"train": "recipe.yaml"},
            "next": {"train": "recipe.yaml", "start": "first", "mixtures": {"one": {"rows": 1}, "two": {"rows": 2}}},
            "soup": {"soup": {"of": ["first", "next"], "method": "uniform"}},
            "quantize": {"quantize": {"of": "soup", "schemes": ["mixed"], "train": "recipe.yaml"}},
        },
    }
    Path("steps.yaml").write_text(yaml.safe_dump(steps, sort_keys=False), encoding="utf-8")


def write_models() -> None:
    """Bases, and all that commands make of them: runs, results, an index, records."""
    import torch
    from tiny_gguf import write_tiny

    torch.set_num_threads(1)
    _write_base(Path("base"))
    _shard(Path("base"), Path("sharded"))
    write_tiny(Path("base.gguf"))
    torch.save(
        {"input_ids": torch.full((4, 6), 5), "attention_mask": torch.ones(4, 6, dtype=torch.long)}, "tables/tokens.pt"
    )
    run("train", "recipe.yaml", "--json")
    first = runs()[-1]
    run("train", "recipe.yaml", "hypothesis=another seed", "--seed", "2", "--json")
    second = runs()[-1]
    _stopped_run()
    for name in (first, second):
        run("eval", name, "--suite", "suite", "--suite", "pairs.tsv", "--json")
        run("eval", name, "--checkpoints", "--json")
    run("eval", "bm25", "--suite", "suite", "--json")
    run("compare", first, second, "--suite", "suite", "--json")
    run("data", "check", "recipe.yaml", "--against", "suite", "--json")
    run("runs", "decide", first, "keep", "better", "--json")
    run("runs", "rebuild", "--json")
    run("search", first, "read", "--folder", "code", "--json")
    run("report", first)
    shutil.copytree(Path("runs", first, "model"), "model")
    for seed, name in (("1", "one"), ("2", "two")):
        run("train", "recipe.yaml", "model.start=model", "name=soup", "--seed", seed, "--json")
        shutil.move(Path("runs", runs()[-1], "model"), Path("soups", name))
    run("encode", "model", "suite", "vectors", "--shard-rows", "3", "--json")
    run("index", "model", "suite", "--to", "store", "--field", "verb:text", "--index", "int8", "--json")


def runs() -> list[str]:
    """Ids of the runs, in their order; the names that place them."""
    return sorted(path.parent.name for path in Path("runs").glob("*/manifest.json"))


def run(*words: str, codes: tuple[int, ...] = (0,)) -> None:
    """One command of the building.

    Raises:
        SystemExit: it ends with another code.
    """
    from gemma4vec.cli.main import execute

    stream, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(errors):
        code = execute(["--traceback", *words])
    if code not in codes:
        sys.exit(
            f"error: the place cannot be made: gemma4vec {' '.join(words)} ended with {code}\n"
            + stream.getvalue()
            + errors.getvalue()
        )


def _stopped_run() -> None:
    """A run that was interrupted after its first step, to be resumed."""
    from gemma4vec.training import loop

    seen: Callable[..., object] = loop.StepBudget.seen

    def interrupted(*arguments: object, **named: object) -> object:
        raise KeyboardInterrupt

    loop.StepBudget.seen = interrupted  # type: ignore[method-assign, assignment]
    try:
        run("train", "recipe.yaml", "name=stopped", codes=(130,))
    finally:
        loop.StepBudget.seen = seen  # type: ignore[method-assign, assignment]


def _write_base(folder: Path) -> None:
    from same_loss_worker import write_base

    write_base(folder)


def _shard(base: Path, folder: Path) -> None:
    """The same base with its weights in two files and an index."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(base, folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    files = {name: f"model-0000{1 + (at >= len(names) // 2)}-of-00002.safetensors" for at, name in enumerate(names)}
    for file in sorted(set(files.values())):
        save_file(
            {name: weights[name] for name in names if files[name] == file}, folder / file, metadata={"format": "pt"}
        )
    index = {"metadata": {"total_size": sum(weight.nbytes for weight in weights.values())}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def _helper_folders() -> None:
    """The tests' makers of tiny files can be imported."""
    helpers = Path(__file__).resolve().parents[2] / "tests" / "helpers"
    sys.path += [str(helpers), str(helpers / "models")]


@contextlib.contextmanager
def _counted_names() -> Iterator[None]:
    """Run ids from a counter in place of clock and chance."""
    from gemma4vec.ledger import run_folder

    count = calls = 0

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Clock":
            nonlocal count
            count += 1
            return cls(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=count)

    real = secrets.token_hex
    run_folder.datetime = Clock  # type: ignore[misc]

    def token(nbytes: int | None = None) -> str:
        nonlocal calls
        calls += 1
        return f"{calls:0{2 * (nbytes or 16)}x}"

    secrets.token_hex = token
    try:
        yield
    finally:
        run_folder.datetime = datetime  # type: ignore[misc]
        secrets.token_hex = real
