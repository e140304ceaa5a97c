"""Odd command lines and environment variables."""

from random import Random
from typing import Final

from fuzzing import odd_values

Words = tuple[str, ...]
OVERRIDDEN: Final = """
train recipe.yaml --dry-run
data read recipe.yaml
matrix plan.yaml --dry-run
"""
LIGHT_COMMANDS: Final = """
--help
--version
cache
runs
runs looks
runs sql 'SELECT count(*) FROM runs'
runs rebuild
runs detectable suite --seeds 3
runs lock final later
eval bm25 --suite suite --role dev --seed 1
eval bm25 --suite list.yaml --metric recall@10
data read recipe.yaml --stage 0
data read --source jsonl --path rows.jsonl --set max_rows=2 --out read.jsonl
data check rows.jsonl --against suite --near 0.8 --language en
data mine rows.jsonl --out mined.jsonl -n 3 --ranks 2-5 --share 0.9 --choose draw
data stats rows.jsonl --sample 4 --code
matrix plan.yaml --dry-run --set budget.rows=4
"""
MODEL_COMMANDS: Final = """
doctor
eval {first} --suite suite
eval model --suite pairs.tsv
runs
report {first}
search {first} read --folder code
compare {first} {second} --suite suite
train recipe.yaml --dry-run
"""
COMMANDS: Final = f"""
{LIGHT_COMMANDS.strip()}
{MODEL_COMMANDS.strip()}
train recipe.yaml --dry-run --seed 3
encode model suite new --shard 1/2 --shard-rows 3 --format npy --dtype f16 --max-bad-share 0.5 --lease-seconds 9
encode model suite vectors --shard-rows 3 --check
index model suite --to new --index int8 --field verb:text --queries suite/queries.jsonl --fresh
search {{first}} read --store store --filter 'verb = "read"' -k 3
launch local recipe.yaml stages.0.batch.rows=4 --nproc-per-node 2 --max-restarts 1
launch ssh recipe.yaml --hosts a,b --name job --workdir code --port 2000
launch slurm recipe.yaml --nodes 2 --gpus 2 --cpus 4 --mem 8G --time 1:00:00 --partition p --sbatch=--qos=high
launch skypilot recipe.yaml
train --resume {{stopped}}
eval {{first}} --checkpoints --suite suite --seed 1 --no-cache
eval model --suite suite --dtype fp32 --max-tokens 36 --out results
compare {{first}} bm25 --metric ndcg@10 --suite suite --margin 0.1 --no-worse-than 0.05 --seed 1
compare {{first}},{{second}} bm25 --allow-different-settings
agreement --suite suite --metric ndcg@10 --proxy 'training loss' --control {{first}} --least-effect 0.1
matrix plan.yaml --table --out matrix
runs show {{first}}
runs diff {{first}} {{second}}
runs decide {{first}} keep better --by 'training loss' --on suite
runs freeze {{first}} chosen
report {{first}} {{second}} --correction holm --out page.html
search {{first}} sort -k 3 --folder code
data check recipe.yaml --against suite --drop dropped.jsonl --clean clean
data mine rows.jsonl --out mined.jsonl --model model --margin 0.1 --relabel 1.0 --scores --fresh
data stats rows.jsonl --tokenizer base --html page.html
data pycode code --out pairs --held-out sorting --negatives 1
cache clear --folder bases
cache clear --model {{first}}
bench recipe.yaml stages.0.layout.compile=false --stage 0 --seconds 0
fanout model --suite suite --log texts.txt --n 2 --step-degrees 5 --points 6 --feedback 2 --weight 0.5 --seed 1
fanout model --query read --target text --to 'sort a tree' --log texts.txt --faithful 0.1 --diverse 0.4
inspect {{first}} --suite suite --against bm25 --html page.html
inspect remedy 'overlap <= 0.3' --in runs --recipe recipe.yaml --times 2 --effect 0.1 --margin 0.02 --out new
inspect model --suite suite --against none --probes position,limit
inspect model --suite suite --layers --map
inspect explain model q1 --suite suite
inspect similar bm25 model --suite suite
inspect flips bm25 model --suite suite --most 3 --seed-of-b {{first}}
inspect labels bm25 model --suite suite --out new
inspect judge rows.jsonl --suite suite --by me
inspect verify {{first}} --against {{second}} --control bm25
invert model --decoder base --text 'read a file' --n 2 --edit 1
privacy model --suite suite --texts texts.txt --held-out 2 --html page.html
soup soups/one soups/two --out new --method weights --weights 0.5,0.5 --start-weight 0.1 --dev suite
quantize model --scheme mixed --out new --dev suite
pipeline steps.yaml --dry-run --set budget.minutes=2
"""
# Whatever a person names as an output may be anywhere: their values stay inside the place.
OUTPUTS: Final = frozenset(("--out", "--drop", "--clean", "--html", "--folder"))
# Words that would do minutes of honest work, or read the whole machine.
_LONG: Final = frozenset(("--all", "--follow", "quickstart", "pycode", "debian", "nanobeir", "--seconds"))
FOUND: Final = (
    "rows.jsonl", "suite", "recipe.yaml", "plan.yaml", "list.yaml", "bm25", "latest", "runs", "drop.jsonl",
    "missing", "missing.yaml", ".", "recipe:none", "a,b", ",", "bm25,bm25", "model", "base", "--json", "--help",
    "--seed", "--suite", "--out", "-k", "-n", "--bm25", "--no-bm25", "--dry-run", "--checkpoints",
    "--version",
)  # fmt: skip
STDIN: Final = (
    b"", b"read the file\n", b"read\n\nsort\n", b"\xff\xfe\n", b"\x00\n", "\u2028 \U0001f4a9\n".encode(),
    b"read\r\nsort", b"x" * 20_000, b":k 3\n:show 1\n",
)  # fmt: skip


def changed(words: Words, draw: Random, overrides: bool) -> Words:
    """One to three words changed, left out, doubled or added; with `overrides`: keys of a recipe set to odd values."""
    if overrides:
        return (*words, *(f for _ in range(draw.choice((1, 1, 2))) for f in _override(words, draw)))
    made = list(words)
    for _ in range(draw.choice((1, 1, 2, 3))):
        at = draw.randrange(len(made) + 1)
        how = draw.random()
        before = made[at - 1] if at else ""
        if how < 0.15 and at < len(made):
            del made[at]
        elif how < 0.25 and at < len(made):
            made.insert(at, made[at])
        elif how < 0.3:
            draw.shuffle(made)
        elif how < 0.8 and at < len(made):
            made[at] = _word(draw, before, at)
        else:
            made.insert(at, _word(draw, before, at))
    return tuple(word for word in made if word not in _LONG) or ("--help",)


def _word(draw: Random, before: str, at: int) -> str:
    if draw.random() < 0.4:
        return draw.choice(FOUND)
    text = str(odd_values.scalar(draw)).replace("\x00", "")  # no system passes a NUL
    positional = at > 0 and not before.startswith("-")
    outside = ".." in text or text.startswith(("/", "~"))
    return "missing" if outside and (positional or before in OUTPUTS) else text


def _override(words: Words, draw: Random) -> Words:
    """`KEY=VALUE`, behind `--set` for commands that need it."""
    keys = PLAN_KEYS if words[0] == "matrix" else KEYS
    key = draw.choice(keys)
    if draw.random() < 0.15:
        steps = key.split(".")
        steps[draw.randrange(len(steps))] = str(draw.choice(odd_values.STRINGS))
        key = ".".join(steps)
    text = f"{key}={_yaml_value(draw)}" if draw.random() < 0.95 else key
    text = text.replace("\x00", "")
    return (text,) if words[0] == "train" else ("--set", text)


def _yaml_value(draw: Random) -> str:
    how = draw.random()
    if how < 0.5:
        return str(odd_values.scalar(draw))
    if how < 0.8:
        return odd_values.as_json(odd_values.value(draw), draw)
    return draw.choice((*YAML, odd_values.nested(odd_values.DEEP, False), "9" * 5000))


YAML: Final = (
    "[", "]", "{", "}", "{a: 1}", "[1, 2]", "*a", "&a [*a]", "&a {b: *a}", "!!int x", "!!python/name:os.system", "? a",
    "- a", "a: b", "|", ">", "'", '"', "2024-02-30", "2024-01-01", "1:30", "0b2", "~", "null", "true", "no",
)  # fmt: skip
KEYS: Final = (
    "name", "seed", "hypothesis", "model", "model.base", "model.attention", "model.readout", "model.readout.name",
    "model.readout.heads", "model.head", "model.head.widths", "model.lora", "model.lora.rank", "model.lora.alpha",
    "model.lora.dropout", "model.lora.modules", "model.lora.last_layers", "model.train", "model.prompts",
    "model.prompts.query", "model.max_tokens", "model.dtype", "stages", "stages.0", "stages.1", "stages.-1",
    "stages.*.name", "stages.0.name", "stages.0.data", "stages.0.data.0", "stages.0.data.0.path",
    "stages.0.data.0.source", "stages.0.data.0.name", "stages.0.data.0.max_rows", "stages.0.data.0.max_bad_share",
    "stages.0.data.0.weight", "stages.0.data.0.columns", "stages.0.data.0.prompts", "stages.0.data.0.drop",
    "stages.0.mixture.temperature", "stages.0.task", "stages.0.task.kind", "stages.0.task.temperature",
    "stages.0.task.terms", "stages.0.task.terms.0.kind", "stages.0.task.hard_negatives",
    "stages.0.task.learn_temperature", "stages.0.batch", "stages.0.batch.rows", "stages.0.batch.accumulate",
    "stages.0.batch.group_rows", "stages.0.batch.clusters", "stages.0.batch.clusters.by",
    "stages.0.batch.clusters.count", "stages.0.batch.query_tokens", "stages.0.batch.tokenize", "stages.0.layout",
    "stages.0.layout.kind", "stages.0.layout.row_tokens", "stages.0.layout.tokens_per_forward",
    "stages.0.layout.grad_cache", "stages.0.optimizer.learning_rate", "stages.0.optimizer.betas",
    "stages.0.optimizer.clip", "stages.0.optimizer.warmup_steps", "stages.0.budget", "stages.0.budget.steps",
    "stages.0.budget.minutes", "stages.0.evaluation", "stages.0.evaluation.suite",
    "stages.0.evaluation.every_steps", "stages.0.evaluation.at_shares", "stages.0.evaluation.stop",
    "stages.0.evaluation.export", "",
)  # fmt: skip
PLAN_KEYS: Final = (
    "name", "variables", "variables.suites", "recipes", "recipes.0", "recipes.0.recipe", "bases", "axes",
    "axes.temperature.values", "overrides", "learning_rates", "learning_rates.0", "search", "search.rows", "seeds",
    "top", "budget", "budget.rows", "dev", "dev.0.suite", "dev.0.max_queries", "final", "final.0", "metric",
    "control", "smallest_effect", "stop", "references", "minutes", "equal_rows", "",
)  # fmt: skip


def environment(draw: Random) -> dict[str, str | None]:
    """One or two odd variables."""
    made: dict[str, str | None] = {}
    for _ in range(draw.choice((1, 1, 2))):
        name = draw.choice(list(VARIABLES))
        made[name] = draw.choice((*VARIABLES[name], *(_ODD if name not in _FOLDERS else ())))
    return made


_ODD: Final = ("", " ", "-1", "0", "x", "nan", "1e999", "é", "\udcff", "9" * 5000, "\n", "1,2", "²")
_PLACES: Final = ("rows.jsonl", "missing/deep", "", "tmp", "a\nb", "\udcff", "x" * 300, "#?%", "suite", " ")
_FOLDERS: Final = frozenset(
    ("GEMMA4VEC_HOME", "GEMMA4VEC_CACHE", "HOME", "TMPDIR", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR")
)  # fmt: skip
VARIABLES: Final[dict[str, tuple[str | None, ...]]] = {
    "GEMMA4VEC_HOME": (None, *_PLACES),
    "GEMMA4VEC_CACHE": _PLACES[:-1],
    "HOME": (None, *_PLACES),
    "TMPDIR": (*_PLACES,),
    "XDG_CACHE_HOME": _PLACES,
    "TORCHINDUCTOR_CACHE_DIR": _PLACES,
    "GEMMA4VEC_VECTOR_CACHE_GB": ("0", "-1", "inf", "1e400"),
    "GEMMA4VEC_MIRROR": _PLACES,
    "HF_HUB_OFFLINE": (None, "0", "yes"),
    "TRANSFORMERS_OFFLINE": ("1", "0"),
    "HF_ENDPOINT": ("nowhere", "http://", "http://[::", "ftp://x", "http://127.0.0.1:1"),
    "LOCAL_WORLD_SIZE": ("1", "2"),
    "LOCAL_RANK": ("3",),
    "RANK": ("1",),
    "CC": ("none", "none -x", '"'),
    "CXX": ("none", "/dev/null"),
    "COLUMNS": ("1", "5", "10000"),
    "LINES": ("1",),
    "TERM": (None, "dumb", "xterm"),
    "NO_COLOR": ("1",),
    "FORCE_COLOR": ("1",),
    "LC_ALL": ("C", "de_DE", "xx"),
    "TZ": ("x", "UTC+99"),
    "PATH": (None, "", "missing"),
    "USER": (None,),
    "OMP_NUM_THREADS": ("0",),
    "CUDA_VISIBLE_DEVICES": ("-1", "5"),
    "TOKENIZERS_PARALLELISM": ("true",),
    "http_proxy": ("nowhere", "http://[::"),
    "LD_PRELOAD": ("none.so",),
    "PYTHONHASHSEED": ("1",),
}
