"""Your own data, from a file of rows to a model that was trained, compared and searched, in about ten minutes.

    python examples/own_data.py my_rows.jsonl --minutes 3

Each line of the file is one row: {"query": "how to open a file", "pos": ["a text that answers it"]}. Without a file the
script makes one of Python's own library: a function's first sentence, and its code without it. The `# %%` lines are the
cells of a notebook: an editor that knows them runs one at a time, and results show themselves.
"""

# %% What to use
import argparse
import ast
import json
import random
import sys
import sysconfig
from pathlib import Path

import gemma4vec as g4v

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("rows", nargs="?", type=Path, help="your JSONL file; default: rows made of Python's library")
parser.add_argument("--minutes", type=float, default=3.0, help="minutes of training")
parser.add_argument("--steps", type=int, help="steps of training, instead of minutes")
parser.add_argument("--base", default="bundled:gemma-3-270m", help="the model to begin with")
parser.add_argument("--out", type=Path, default=Path("own_data"), help="folder for the files made here")
parser.add_argument("--held-out", type=int, default=200, help="rows to test on")
parser.add_argument("--max-rows", type=int, default=4000, help="rows to use at most")
parser.add_argument(
    "--search", default="remove a directory and everything below it", help="what to look for at the end"
)
arguments = parser.parse_args([] if "ipykernel" in sys.modules else None)
arguments.out.mkdir(parents=True, exist_ok=True)


# %% The rows
def library_rows(most: int) -> list[dict]:
    """Rows of Python's standard library: a function's first sentence, and its code without the docstring."""
    rows = []
    root = Path(sysconfig.get_paths()["stdlib"])
    for file in sorted([*root.glob("*.py"), *root.glob("*/*.py")]):
        if "test" in str(file.relative_to(root)) or "site-packages" in file.parts or len(rows) >= most:
            continue
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef) or len(node.body) < 2:
                continue
            sentence = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            if len(sentence.split()) >= 4:
                node.body = node.body[1:]
                rows.append({"query": sentence, "pos": [{"title": file.stem, "text": ast.unparse(node)[:2000]}]})
    return rows[:most]


def read_rows(file: Path, most: int) -> list[dict]:
    with file.open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream if line.strip()][:most]


def write_lines(file: Path, values: list[dict]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return file


if arguments.rows is None:
    rows = library_rows(arguments.max_rows)
else:
    # Broken lines are reported with file, line and field before anything else is done.
    print(g4v.check_contamination(arguments.rows))
    rows = read_rows(arguments.rows, arguments.max_rows)
print(f"{len(rows):,} rows, such as {json.dumps(rows[0])[:200]}")

# %% Hold some out: they become a test suite, a folder in BEIR's layout
random.Random(0).shuffle(rows)
held_out, training = rows[: arguments.held_out], rows[arguments.held_out :]
documents = {}
for row in held_out:
    for document in row["pos"]:
        as_object = {"text": document} if isinstance(document, str) else document
        documents.setdefault(json.dumps(as_object, sort_keys=True), (f"d{len(documents)}", as_object))
suite = arguments.out / "suite"
write_lines(suite / "corpus.jsonl", [{"_id": key, **document} for key, document in documents.values()])
write_lines(suite / "queries.jsonl", [{"_id": f"q{place}", "text": row["query"]} for place, row in enumerate(held_out)])
judgments = ["query-id\tcorpus-id\tscore\n"]
for place, row in enumerate(held_out):
    for document in row["pos"]:
        as_object = {"text": document} if isinstance(document, str) else document
        judgments.append(f"q{place}\t{documents[json.dumps(as_object, sort_keys=True)][0]}\t1\n")
(suite / "qrels").mkdir(exist_ok=True)
(suite / "qrels" / "test.tsv").write_text("".join(judgments), encoding="utf-8")
# Named after the data: results on other data are never compared with these.
(suite / "suite.yaml").write_text("name: own-data\nrole: dev\n", encoding="utf-8")

# %% Is the test in the training data? What is, is left out
train_file = write_lines(arguments.out / "train.jsonl", training)
found = g4v.check_contamination(train_file, suite, clean=arguments.out / "clean")
print(found)
clean = arguments.out / "clean" / "train.jsonl.gz"

# %% Hard negatives: documents that look as if they answered
mined = g4v.mine_hard_negatives(clean, arguments.out / "mined.jsonl", n=2, ranks=(1, 30), share=0.95)
print(mined)
# A row that shares no word with another document has none; the loss below wants one for each row.
with_negative = [row for row in read_rows(mined.out, mined.rows) if row.get("neg")]
train_hard = write_lines(arguments.out / "train_hard.jsonl", with_negative)
print(f"{len(with_negative):,} of {mined.rows:,} rows have a hard negative; the others are left out")

# %% Train
budget = {"minutes": arguments.minutes} if arguments.steps is None else {"steps": arguments.steps}
recipe = g4v.load_recipe(
    {
        "name": "own-data",
        "hypothesis": "A few minutes on our own rows beat BM25 on rows that were held out.",
        "model": {
            "base": arguments.base,
            "attention": "causal",
            "readout": "last_token",
            "prompts": "retrieval",
            "max_tokens": 256,
            "lora": {"rank": 16, "alpha": 32},
        },
        "stages": [
            {
                "name": "contrast",
                "data": [{"name": "own", "path": train_hard}],
                "task": {"temperature": 0.05, "hard_negatives": 1},
                "batch": {"rows": min(32, len(with_negative)), "query_tokens": 64, "document_tokens": 128},
                "layout": {"row_tokens": 128, "tokens_per_forward": 2048},
                "optimizer": {"learning_rate": 5e-4, "warmup_steps": 8, "schedule": "linear"},
                "budget": budget,
                "evaluation": {"every_steps": None},
            }
        ],
    }
)
run = g4v.train(recipe)
print(run)

# %% Score it, with what it has to beat next to it
bm25 = g4v.evaluate("bm25", suite)
untrained = g4v.evaluate(arguments.base, suite, max_tokens=256)  # cut where the trained one cuts
trained = g4v.evaluate(run, suite)
for result in (untrained, trained):
    result.show()

# %% Is the difference more than noise?
print(g4v.compare(trained, bm25))
print(g4v.compare(trained, untrained).sentence)

# %% Search
model = g4v.load(run)
corpus = [document for _, document in documents.values()]
document_vectors = model.encode_document(corpus)
scores = model.similarity(model.encode_query(arguments.search), document_vectors)[0]
print(f"{arguments.search}:")
for place in scores.argsort()[::-1][:5]:
    first_line = corpus[place]["text"].strip().split("\n")[0]
    print(f"  {scores[place]:.3f}  {first_line[:90]}")
print(f"the model: {run.model_folder}\nthe report: {run.report()}")
