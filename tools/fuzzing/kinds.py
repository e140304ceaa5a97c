"""The kinds of input: which files are made odd, and by which commands they are then read."""

import shlex
from dataclasses import dataclass
from typing import Final

from fuzzing import odd_words

Words = tuple[str, ...]
DATA: Final = "rows.jsonl suite other final recipe.yaml whole.yaml plan.yaml list.yaml drop.jsonl"
RUNS: Final = "runs suite base rows.jsonl cache pairs.tsv recipe.yaml"
ROWS: Final = "stages.0.data.0.path={file}"
# One step, not compiled, whatever the recipe asks for; in packed and in padded layout.
STEP: Final = "stages.0.layout.compile=false 'stages.0.budget={steps: 1}' 'stages.0.evaluation={}'"
PADDED: Final = f"{STEP} stages.0.layout.kind=padded"
TEACHER: Final = "'stages.0.task.terms=[{kind: matching, vectors: {file}, form: projection}]'"


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        weight: its share of all inputs.
        files: patterns of the files of the place that are made odd, one in each input; empty: the command line is odd.
        commands: those that read them, one a line; `{file}` is the odd file, `{first}`, `{second}` and `{stopped}` are
            runs; see `_about` for more.
        parts: what else of the place they need.
        models: whether the place must have models and runs.
        working: whether the commands do the work that sizes in the file ask for.
    """

    weight: float
    files: str
    commands: str
    parts: str = DATA
    models: bool = False
    working: bool = False

    def split(self) -> list[Words]:
        """The commands as words."""
        return [tuple(shlex.split(line)) for line in self.commands.strip().splitlines()]


KINDS: Final[dict[str, Kind]] = {
    "recipe": Kind(
        7,
        "recipe.yaml whole.yaml",
        """
        train {file} --dry-run
        train {file} model.base=base --dry-run
        data mine {file} --out mined.jsonl
        """,
        f"{DATA} base",
        models=True,
    ),
    "recipe-data": Kind(
        5,
        "recipe.yaml whole.yaml",
        """
        data read {file}
        data stats {file}
        data check {file} --against suite
        """,
    ),
    "recipe-trained": Kind(
        4,
        "recipe.yaml whole.yaml",
        f"""
        train {{file}} {STEP}
        train {{file}} {PADDED}
        bench {{file}} {STEP} --seconds 0
        """,
        f"{DATA} base tables",
        models=True,
        working=True,
    ),
    "plan": Kind(
        5,
        "plan.yaml",
        """
        matrix plan.yaml --dry-run
        matrix plan.yaml --dry-run --set budget.rows=4
        matrix plan.yaml --table
        """,
        f"{DATA} base",
        models=True,
    ),
    "rows": Kind(
        8,
        "rows.jsonl rows.jsonl.gz",
        f"""
        data read --source jsonl --path {{file}}
        data read --source jsonl --path {{file}} --out read.jsonl.gz
        data read recipe.yaml --set {ROWS}
        data check {{file}} --against suite --drop dropped.jsonl --clean clean
        data mine {{file}} --out mined.jsonl -n 2
        data mine {{file}} --out mined.jsonl --corpus suite --scores --choose draw
        data stats {{file}} --html stats.html
        """,
    ),
    "rows-trained": Kind(
        4,
        "rows.jsonl rows.jsonl.gz",
        f"""
        train recipe.yaml {ROWS} {STEP}
        train recipe.yaml {ROWS} 'stages.0.task.terms=[{{kind: kl}}, {{kind: margin_mse}}]' {PADDED}
        train recipe.yaml {ROWS} stages.0.batch.tokenize=once {PADDED}
        train recipe.yaml {ROWS} 'stages.0.task={{kind: masked_next_token}}' {STEP}
        eval model --suite {{file}}
        eval model --suite loss:{{file}}
        data mine {{file}} --out mined.jsonl --model model --bm25
        data stats {{file}} --model model
        """,
        f"{DATA} base model",
        models=True,
    ),
    "corpora": Kind(
        2,
        "other/corpus.jsonl drop.jsonl texts.txt",
        """
        data mine rows.jsonl --corpus {corpus} --out mined.jsonl
        data read recipe.yaml --set stages.0.data.0.drop={drop}
        data read --source text --path {file}
        """,
    ),
    "tables": Kind(
        8,
        "tables/rows.csv tables/rows.tsv tables/rows.parquet tables/hub/*.parquet tables/arrow/* tables/texts.sqlite"
        " suite/*.jsonl suite/qrels/train.tsv apt/* texts.txt",
        """
        data read --source {kind} --path {path}
        data read --source {kind} --path {path} --out out.jsonl
        data read --source {kind} --path {path} --set max_bad_share=1
        """,
        "tables suite apt texts.txt",
    ),
    "tensors": Kind(
        1.5,
        "tables/tokens.pt",
        """
        data read --source tensors --path {file}
        data read --source tensors --path {file} --set pair_with_itself=true
        """,
        "tables",
        models=True,
    ),
    "suites": Kind(
        8,
        "suite/corpus.jsonl suite/queries.jsonl suite/qrels/test.tsv suite/suite.yaml list.yaml final/suite.yaml",
        """
        eval bm25 --suite {suite}
        eval bm25 --suite {suite} --metric recall@3 --metric ndcg_binary@10 --out results
        runs detectable {suite}
        data check rows.jsonl --against {suite}
        runs lock {suite} later
        """,
        DATA,
    ),
    "suites-encoded": Kind(
        4,
        "suite/corpus.jsonl suite/queries.jsonl suite/qrels/test.tsv suite/suite.yaml list.yaml pairs.tsv pairs.tsv",
        """
        eval model --suite {suite}
        eval model --suite {suite} --no-cache --max-tokens 36
        """,
        f"{DATA} model pairs.tsv cache",
        models=True,
    ),
    "teachers": Kind(
        4,
        "tables/vectors.jsonl tables/vectors.parquet tables/array.npy tables/array.jsonl",
        f"""
        train recipe.yaml {TEACHER} {STEP}
        train recipe.yaml {TEACHER} --dry-run
        """,
        f"{DATA} base tables",
        models=True,
    ),
    "bases": Kind(
        7,
        "base/*.json base/*.json base/model.safetensors sharded/*",
        f"""
        train recipe.yaml model.base={{base}} --dry-run
        train recipe.yaml model.base={{base}} model.readout=last_token {STEP}
        train recipe.yaml model.base={{base}} model.attention=causal {PADDED}
        data stats rows.jsonl --tokenizer {{base}}
        eval {{base}} --suite suite
        """,
        f"{DATA} base sharded",
        models=True,
        working=True,
    ),
    # No command takes a GGUF file by its name: the worker calls what unpacks those of bundled bases.
    "gguf": Kind(2, "base.gguf", "@gguf base.gguf", "base.gguf", models=True),
    "models": Kind(
        4,
        "model/*.json model/*/*.json model/*.safetensors",
        f"""
        eval model --suite suite
        data mine rows.jsonl --out mined.jsonl --model model
        train recipe.yaml model.base=model {PADDED}
        """,
        f"{DATA} model base",
        models=True,
        working=True,
    ),
    "results": Kind(
        6,
        "runs/*/evals/*/*/* runs/*/evals/*/*/metrics.json runs/evals/*/*/*",
        """
        compare {first} {second} --suite suite
        compare {first} bm25 --suite suite --margin 0.1 --no-worse-than 0.05
        compare {first},{second} bm25 --suite suite
        report {first} {second}
        report {first} --correction benjamini-hochberg
        runs
        runs show {first}
        runs diff {first} {second}
        agreement --suite suite
        runs rebuild
        eval {first} --checkpoints --suite suite
        """,
        RUNS,
        models=True,
    ),
    "manifests": Kind(
        7,
        "runs/*/manifest.json runs/*/events.jsonl runs/*/recipe.yaml runs/*/decision.json",
        """
        runs
        runs show {first}
        runs diff {first} {second}
        runs decide {first} drop worse
        runs freeze {first} chosen
        runs rebuild
        report {first}
        report {first} {second}
        compare {first} {second} --suite suite
        eval {first} --suite suite
        eval {first} --checkpoints
        data check runs/{first} --against suite
        search {first} read --folder code
        agreement --suite suite
        train recipe.yaml model.base=runs/{first}/model --dry-run
        """,
        f"{RUNS} code",
        models=True,
    ),
    "checkpoints": Kind(
        6,
        "runs/{stopped}/checkpoints/*/*/* runs/{stopped}/checkpoints/*/*/* runs/{stopped}/*"
        " runs/{first}/checkpoints/*/*/*",
        """
        train --resume {stopped}
        train --resume {stopped}
        eval {first} --checkpoints
        data mine rows.jsonl --out mined.jsonl --model {stopped}
        """,
        RUNS,
        models=True,
    ),
    "ledger": Kind(
        7,
        "runs/ledger.jsonl runs/ledger.sqlite",
        """
        runs
        runs looks
        runs sql 'SELECT * FROM looks'
        runs rebuild
        runs show {first}
        runs decide {first} keep again
        compare {first} {second} --suite suite
        eval bm25 --suite suite
        eval {first} --suite suite
        runs freeze {first}
        runs lock final later
        agreement --suite suite
        report {first}
        """,
        f"{RUNS} final",
        models=True,
    ),
    "vectors": Kind(
        3,
        "cache/vectors/*/* cache/**/*",
        """
        eval model --suite suite
        eval {first} --suite pairs.tsv
        cache
        cache clear
        cache clear --folder tokens
        """,
        f"{RUNS} model",
        models=True,
    ),
    "indexes": Kind(
        4,
        "runs/*/index/*/* runs/*/index/*/* code/*/*.py",
        """
        search {first} 'read a file' --folder code
        search {first} --folder code -k 2
        search {first} x --folder code -k 100
        """,
        "runs base code cache",
        models=True,
    ),
    "records": Kind(
        2.5,
        "runs/checks/*",
        """
        runs show {first}
        report {first}
        eval {first} --suite suite
        data check recipe.yaml --against suite
        compare {first} {second} --suite suite
        """,
        RUNS,
        models=True,
    ),
    "code": Kind(
        0.6,
        "code/*/*.py",
        """
        data pycode code --out pairs
        data read --source pycode --path code
        """,
        "code",
    ),
    "documents": Kind(
        4,
        "docs/* docs/* docs/*/* queries.tsv",
        """
        data documents docs
        data documents docs --queries queries.tsv
        data read --source documents --path docs
        data read --source documents --path docs --set queries=queries.tsv --set negatives=0
        """,
        "docs queries.tsv",
    ),
    "encoded": Kind(
        4,
        "suite/corpus.jsonl rows.jsonl rows.jsonl.gz texts.txt tables/rows.csv tables/rows.tsv tables/rows.parquet",
        """
        encode model {file} new
        encode model {file} new --row-ids --max-bad-share 1 --shard-rows 3
        encode model {file} new --text-field query --row-ids --format npy --dtype f16
        encode model {file} new --text-field anchor --row-ids --input-type query --shard 1/2
        index model {file} --to new --row-ids
        index model {file} --to new --text-field anchor --row-ids --field positive:text
        """,
        f"{DATA} rows.jsonl.gz texts.txt tables model",
        models=True,
        working=True,
    ),
    "shards": Kind(
        4,
        "vectors/* vectors/*/*",
        """
        encode model suite vectors --shard-rows 3
        encode model suite vectors --shard-rows 3 --check
        encode model suite vectors --shard-rows 3 --workers 1 --lease-seconds 1
        index model vectors --to new
        """,
        "suite vectors model",
        models=True,
    ),
    "stores": Kind(
        5,
        "store/* store/*/*",
        """
        search {first} read --store store
        search {first} 'read a file' --store store --filter 'verb = "read"' -k 3
        search {first} read --store store --exact
        index model suite --to store --field verb:text
        index model suite --to store --field verb:text --index int8 --fresh
        """,
        f"{RUNS} suite store model",
        models=True,
    ),
    "exports": Kind(
        0.3,
        "model/*.json model/*/*.json",
        """
        export model --to st --out new --suite suite --queries 4 --documents 6
        parity model {first} --suite suite --queries 4 --documents 6
        """,
        f"{DATA} {RUNS} model",
        models=True,
        working=True,
    ),
    "launched": Kind(
        2,
        "recipe.yaml whole.yaml",
        """
        launch local {file} --nproc-per-node 2
        launch ssh {file} --hosts a,b
        launch slurm {file} --nodes 2 --output job.sh
        launch skypilot {file}
        launch slurm encode model {file} new --nodes 3
        """,
        f"{DATA} model",
        models=True,
    ),
    "soups": Kind(
        1.5,
        "soups/one/*.json soups/two/*/*.json soups/two/*.json soups/*/*.safetensors",
        """
        soup soups/one soups/two --out new
        soup soups/one soups/two --out new --method weights --weights 0.3,0.7 --start-weight 0.2
        soup soups/one soups/two --out new --method greedy --dev suite
        soup soups/one soups/two --out new --control
        """,
        f"{RUNS} suite soups model",
        models=True,
    ),
    "quantized": Kind(
        1.5,
        "model/*.json model/*/*.json model/*.safetensors recipe.yaml",
        f"""
        quantize model --scheme mixed --out new
        quantize model --scheme mixed --out new --dev suite
        quantize model --scheme mixed --out new --train recipe.yaml {STEP}
        """,
        f"{DATA} model base",
        models=True,
        working=True,
    ),
    "starts": Kind(
        2,
        "model/*.json model/*/*.json model/*.safetensors",
        f"""
        train recipe.yaml model.start=model --dry-run
        train recipe.yaml model.start=model {STEP}
        train recipe.yaml model.start=model 'model.readout={{name: attention, heads: 2}}' {PADDED}
        """,
        f"{DATA} model base",
        models=True,
    ),
    "steps": Kind(
        3,
        "steps.yaml steps.yaml recipe.yaml",
        """
        pipeline steps.yaml --dry-run
        pipeline steps.yaml --dry-run --set budget.minutes=2
        """,
        f"{DATA} steps.yaml base",
        models=True,
    ),
    "denoised": Kind(
        1,
        "rows.jsonl texts.txt denoise.yaml denoise.yaml",
        f"""
        train denoise.yaml --dry-run
        train denoise.yaml {STEP}
        train denoise.yaml {PADDED} 'stages.0.data=[{{name: texts, source: text, path: texts.txt}}]'
        """,
        f"{DATA} base texts.txt denoise.yaml",
        models=True,
        working=True,
    ),
    "asked": Kind(
        3,
        "texts.txt suite/corpus.jsonl suite/queries.jsonl suite/qrels/test.tsv",
        """
        fanout model --suite suite --log texts.txt --n 2 --faithful -1
        fanout model --suite suite --log texts.txt --target gold --out new.jsonl.gz --published records.jsonl
        fanout model --suite suite --log texts.txt --n 2 --pairs pairs.jsonl
        inspect bm25 --suite suite
        inspect model --suite suite --against bm25 --html page.html
        inspect verify model --against bm25
        inspect flips bm25 model --suite suite --html page.html
        inspect labels bm25 model --suite suite
        """,
        f"{DATA} texts.txt model",
        models=True,
    ),
    "overrides": Kind(6, "", odd_words.OVERRIDDEN, f"{DATA} base", models=True),
    "arguments": Kind(
        14,
        "",
        odd_words.COMMANDS,
        f"{RUNS} {DATA} model code tables vectors store texts.txt soups steps.yaml",
        models=True,
    ),
    "arguments-light": Kind(3, "", odd_words.LIGHT_COMMANDS),
    "environment": Kind(3, "", odd_words.LIGHT_COMMANDS),
    "environment-models": Kind(1.5, "", odd_words.MODEL_COMMANDS, f"{RUNS} {DATA} model code", models=True),
}
# The kinds whose place is made in a second, for the test suite.
LIGHT: Final = tuple(name for name, kind in KINDS.items() if not kind.models and name != "code")
