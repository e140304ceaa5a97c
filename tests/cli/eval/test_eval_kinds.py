"""`gemma4vec eval` on every kind of suite, as a person types it."""

import json

import pytest
from hashed_words import HashedWords

from gemma4vec.api import scoring
from gemma4vec.cli.main import execute
from gemma4vec.evaluation.results.result import Result, save_result
from gemma4vec.files import home
from gemma4vec.ledger.recording import record_run
from gemma4vec.ledger.run_folder import RunFolder

WORDS = ["sort", "graph", "nodes", "parse", "json", "file", "open", "socket", "render", "table"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A suite of each kind, and a model that needs no weights."""
    monkeypatch.setattr(scoring, "open_scorer", lambda spec, *_, **__: HashedWords(name=spec))
    lines = "".join(f"test\t{n % 5}\t{word} it\t{WORDS[n - n % 3]} it\n" for n, word in enumerate(WORDS))
    (tmp_path / "pairs.tsv").write_text("split\tscore\tsentence1\tsentence2\n" + lines)
    rows = [{"query": f"how to {w}", "pos": [f"the {w}"], "neg": [f"the {WORDS[n - 1]}"]} for n, w in enumerate(WORDS)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("one", "two"):
        folder = tmp_path / name
        (folder / "qrels").mkdir(parents=True)
        corpus = [{"_id": f"{name}{n}", "text": f"the {word} of {name}"} for n, word in enumerate(WORDS)]
        (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in corpus))
        queries = [{"_id": f"q{n}", "text": f"how to {word}"} for n, word in enumerate(WORDS)]
        (folder / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in queries))
        judged = "".join(f"q{n}\t{name}{n}\t1\n" for n in range(len(WORDS)))
        (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    (tmp_path / "both.yaml").write_text("suites: [one, two]\n")
    return tmp_path


def test_every_kind_in_one_go_and_each_in_a_table_of_its_own(place, capsys):
    suites = [str(place / "pairs.tsv"), str(place / "rows.jsonl"), f"loss:{place}/rows.jsonl", str(place / "both.yaml")]
    words = ["eval", "m", *(word for suite in suites for word in ("--suite", suite))]
    assert execute([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["kind"], row["metric"]) for row in found] == [
        ("sts", "spearman"),
        ("local-rank", "mrr"),
        ("loss", "loss"),
        ("retrieval", "ndcg@10"),
    ]
    assert set(found[3]["tasks"]) == {"one", "two"}
    assert all(row[f"{row['metric']}_low"] <= row[row["metric"]] <= row[f"{row['metric']}_high"] for row in found)
    assert execute(words) == 0
    printed = capsys.readouterr().out
    for title in ("m: sts", "m: local-rank", "m: loss", "m: retrieval", "Spearman", "nDCG@10"):
        assert title in printed


@pytest.mark.parametrize("suite", ["pairs.tsv", "rows.jsonl", "loss:rows.jsonl", "both.yaml"])
def test_compare_knows_the_kind(place, capsys, suite, monkeypatch):
    monkeypatch.chdir(place)
    for model in ("a", "b"):
        assert execute(["eval", model, "--suite", suite]) == 0
    capsys.readouterr()
    assert execute(["compare", "a", "b", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"]["word"] == "undetermined" and found["difference"] == 0.0


def test_a_final_suite_waits_for_the_recipe_to_be_frozen(place, capsys):
    run = RunFolder.create(home(), "good", "name: x\n", recipe_id="recipe", status="finished")
    record_run(run)
    words = ["eval", run.run_id, "--suite", str(place / "one"), "--role", "final"]
    assert execute(words) == 2
    assert "for frozen recipes only" in capsys.readouterr().err
    assert execute([*words, "--look-again", "to see what happens"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "one: a further look at a final suite, since: to see what happens" in printed
    stored = json.loads((run.path / "evals" / "trained" / "one" / "metrics.json").read_text())
    assert stored["settings"]["look_again"] == "to see what happens" and stored["settings"]["suite"]["role"] == "final"
    assert execute(["runs", "freeze", run.run_id]) == 0
    assert execute(words) == 0


def test_the_models_folder_is_the_run(place, capsys):
    run = RunFolder.create(home(), "good", "name: x\n", recipe_id="recipe", status="finished")
    (run.path / "model").mkdir()
    assert execute(["eval", str(run.path / "model"), "--suite", str(place / "one"), "--role", "final"]) == 2
    assert "for frozen recipes only" in capsys.readouterr().err


def test_one_query_is_marked(place, capsys):
    (place / "one" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tone1\t1\n")
    assert execute(["eval", "m", "--suite", str(place / "one")]) == 0
    printed = capsys.readouterr().out
    assert "none" in printed and "one query; no interval" in printed


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--role", "test"], "--role test: use dev or final"),
        (["--mirror", "/nowhere/at/all"], "is not a folder"),
    ],
)
def test_bad_options_are_one_line(place, capsys, words, reason):
    assert execute(["eval", "m", "--suite", "germandpr", *words]) == 2
    assert reason in capsys.readouterr().err


def test_settings_keep_what_explains_a_score(place):
    assert execute(["eval", "m", "--suite", str(place / "one")]) == 0
    settings = json.loads((home() / "evals" / "m" / "one" / "metrics.json").read_text())["settings"]
    assert settings["model"] == {"dtype": "fp32", "max_tokens": 8}
    assert {"kind", "metric", "suite", "ranking", "versions", "look", "run", "created"} < set(settings)


def test_compare_invents_no_interval_for_one_query_and_names_the_test_of_pairs(tmp_path, capsys):
    pairs = {str(n): {"similarity": float(n % 3), "gold": float(n)} for n in range(8)}
    for model, score in (("a", 0.5), ("b", 0.3)):
        for kind, metric, items in (
            ("retrieval", "ndcg@10", {"q": {"ndcg@10": score}}),
            (
                "sts",
                "spearman",
                {key: {**pair, "similarity": pair["similarity"] * score} for key, pair in pairs.items()},
            ),
        ):
            settings = {"kind": kind, "metric": metric, "suite": {"fingerprint": kind}, "model_fingerprint": model}
            save_result(Result(model, kind, {kind: items}, settings), tmp_path / model / kind, [])
    places = [str(tmp_path / model) for model in "ab"]
    assert execute(["compare", *places, "--suite", "retrieval"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "retrieval, 1 query " in printed and "interval of A - B none" in printed and "inf" not in printed
    assert execute(["compare", *places, "--suite", "sts"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "sts, 8 pairs" in printed and "p of these runs (rank swaps)" in printed and "sign-flip" not in printed
