"""Trains the recipes of `make same-loss` with one checkout of gemma4vec and writes what came of them.

    PYTHONPATH=CHECKOUT/src python tools/same_loss_worker.py CHECKOUT RESULT.json

The program is driven by its command line alone (`gemma4vec.cli.main.run`), so the same worker runs against any commit.
It fills the working folder itself: a random Gemma 3 with its tokenizer, rows, a suite.
"""

import contextlib
import hashlib
import json
import os
import platform
import random
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

# Before torch is imported: one thread, so that sums have one order; nothing from a network.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import torch
from safetensors import safe_open
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast

from same_loss_recipes import Json, Tree, recipes

VERBS = ["read", "write", "sort", "open", "close", "return", "merge", "parse", "count", "split"]
THINGS = ["file", "tree", "graph", "list", "line", "name", "value", "table"]
EXTRAS = ["with", "for", "in", "by", "of", "from"]
# What decides the bits of a result, besides the code.
PACKAGES = ("torch", "transformers", "tokenizers", "peft", "sentence-transformers", "safetensors", "numpy")
# Fields of an event that do not depend on the clock.
STEP_FIELDS = ("loss", "gradient_norm", "learning_rate", "tokens", "rows", "padding_share", "temperature")
EVALUATION_FIELDS = ("ndcg@10", "low", "high")


def main() -> None:
    """Train all recipes in the current folder; the result is a JSON file."""
    checkout, result = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    torch.set_num_threads(1)
    import gemma4vec

    found = Path(str(gemma4vec.__file__)).resolve()
    if not found.is_relative_to(checkout):
        sys.exit(f"error: gemma4vec comes from {found}, not from {checkout}; set PYTHONPATH={checkout}/src")
    write_base(Path("base"))
    write_data()
    values: Tree = {"environment": environment(), "inputs": inputs_hash(), "recipes": {}}
    trained: Tree = {}
    for name, recipe in recipes().items():
        print(f"  {name}", file=sys.stderr, flush=True)
        trained[name] = train(name, recipe)
    values["recipes"] = trained
    result.write_text(json.dumps(values), encoding="utf-8")


def environment() -> Tree:
    """Versions and the processor: where they are the same, so are the bits."""
    made: Tree = {package: version(package) for package in PACKAGES}
    made["python"] = ".".join(platform.python_version_tuple()[:2])
    made["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    made["cpu"] = processor()
    return made


def processor() -> str:
    """Name, family, model and stepping of the processor; its architecture where the system does not say more."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.is_file() else ""
    fields = dict(re.findall(r"^(model name|cpu family|model|stepping)\s*: (.*)$", text, flags=re.MULTILINE))
    return ", ".join([platform.machine(), *fields.values()])


def write_base(folder: Path) -> None:
    """A random Gemma 3 of three layers, sliding and full, with a byte-level tokenizer."""
    texts = [f"{verb} the {thing} {extra}" for verb in VERBS for thing in THINGS for extra in EXTRAS]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<eos>", "<bos>", "<unk>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    config = Gemma3TextConfig(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
        initializer_range=0.2,
        sliding_window=8,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        query_pre_attn_scalar=8,
    )
    torch.manual_seed(1)
    Gemma3ForCausalLM(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>"
    ).save_pretrained(folder)


def write_data() -> None:
    """Rows with hard negatives and a teacher's scores in two files, and a suite in BEIR layout."""
    draw = random.Random(2)
    rows: list[Tree] = []
    for verb in VERBS[:6]:
        for thing in THINGS:
            rows.append(row(draw, verb, thing))
    write_lines(Path("rows.jsonl"), rows)
    write_lines(Path("others.jsonl"), [row(draw, verb, thing) for verb in VERBS[6:] for thing in THINGS[:4]])
    suite = Path("suite")
    pairs = [(verb, thing) for verb in VERBS[4:] for thing in THINGS]
    write_lines(
        suite / "corpus.jsonl",
        [
            {"_id": f"d{n}", "title": thing, "text": document(draw, verb, thing)}
            for n, (verb, thing) in enumerate(pairs)
        ],
    )
    write_lines(
        suite / "queries.jsonl",
        [{"_id": f"q{n}", "text": f"{verb} the {thing}"} for n, (verb, thing) in enumerate(pairs) if not n % 3],
    )
    judged = [f"q{n}\td{n}\t1" for n in range(0, len(pairs), 3)]
    (suite / "qrels").mkdir()
    (suite / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged, ""]), encoding="utf-8")


def row(draw: random.Random, verb: str, thing: str) -> Tree:
    """A row of texts of different lengths."""
    others = draw.sample([other for other in THINGS if other != thing], 3)
    negatives: list[Json] = [document(draw, verb, other) for other in others]
    scores: Tree = {"pos": [round(draw.uniform(4, 8), 3)], "neg": [round(draw.uniform(-2, 4), 3) for _ in negatives]}
    query = f"{verb} the {thing}" + " ".join(["", *draw.choices(EXTRAS, k=draw.randrange(6))])
    positive: Tree = {"text": document(draw, verb, thing), "title": f"{thing} {verb}"}
    return {"query": query, "pos": [positive], "neg": negatives, "group": thing, "scores": scores}


def document(draw: random.Random, verb: str, thing: str) -> str:
    """A text of the words that a query for it has, and up to twelve others."""
    return f"def {thing}_{verb} " + " ".join(draw.choices(EXTRAS + THINGS, k=draw.randrange(12)))


def write_lines(path: Path, values: list[Tree]) -> None:
    """JSON objects, one a line."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")


def inputs_hash() -> str:
    """SHA-256 of the base's weights, the tokenizer and the data."""
    digest = hashlib.sha256(weights_hash(Path("base")).encode())
    for path in sorted([Path("base/tokenizer.json"), *Path().glob("*.jsonl"), *Path("suite").rglob("*.*")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def train(name: str, recipe: Tree) -> Tree:
    """Train one recipe by the command line; its losses of every step, its scores, the hash of its model."""
    Path(f"{name}.yaml").write_text(json.dumps(recipe), encoding="utf-8")  # JSON is YAML
    out = Path("runs", name)
    command("train", f"{name}.yaml", "--out", str(out), "--json")
    (log,) = out.glob("*/events.jsonl")
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    steps: list[Json] = [step_values(event) for event in events if event["event"] == "step"]
    scores: list[Json] = [
        {"step": event["step"], **{key: event[key] for key in EVALUATION_FIELDS}}
        for event in events
        if event["event"] == "evaluation"
    ]
    return {"steps": steps, "evaluations": scores, "weights": weights_hash(log.parent / "model")}


def step_values(event: dict[str, Json]) -> Tree:
    """The numbers of a step's event, its terms flattened to `terms.NAME`."""
    values: Tree = {key: event[key] for key in ("stage", "step", *STEP_FIELDS) if key in event}
    terms = event.get("terms")
    for term, value in terms.items() if isinstance(terms, dict) else ():
        values[f"terms.{term}"] = value
    return values


def weights_hash(folder: Path) -> str:
    """SHA-256 of all tensors below a folder: their files, names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            for key in sorted(tensors.keys()):
                tensor = tensors.get_tensor(key).contiguous()
                digest.update(f"{path.relative_to(folder)} {key} {tensor.dtype} {list(tensor.shape)}".encode())
                digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def command(*words: str) -> None:
    """One gemma4vec command in this process; its output is shown where it fails.

    Raises:
        SystemExit: it ended with another code than 0.
    """
    from gemma4vec.cli.main import run

    log = Path("command.log")
    code: int | str | None = None
    with log.open("w", encoding="utf-8") as stream, silenced(stream.fileno()):
        try:
            run(["--traceback", *words])
        except SystemExit as ended:
            code = ended.code
    if code:
        print(log.read_text(encoding="utf-8"), file=sys.stderr)
        sys.exit(f"error: gemma4vec {' '.join(words)} ended with code {code}")


@contextlib.contextmanager
def silenced(descriptor: int) -> Iterator[None]:
    """Both output streams go to an open file, those of libraries written in C too."""
    kept = [os.dup(1), os.dup(2)]
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        for one in kept:
            os.close(one)


if __name__ == "__main__":
    main()
