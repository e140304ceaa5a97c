"""What a person types after --suite: names, folders, lists, pairs, rows; and named suites from a mirror on disk."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gemma4vec.data.loading.open_suite import absolute_spec, open_suite
from gemma4vec.data.suites.catalog import CATALOG, COMPACT, NANO, NANO_TRANSLATED, HubTask
from gemma4vec.data.suites.group import SuiteGroup
from gemma4vec.data.suites.retrieval import load_suite
from gemma4vec.errors import InputError


def beir(folder, queries=3, options=None, prefix=""):
    """A BEIR folder of six documents."""
    folder.mkdir(parents=True)
    (folder / "qrels").mkdir()
    lines = [{"_id": f"{prefix}d{n}", "title": "", "text": f"text {prefix} {n}"} for n in range(6)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = [{"_id": f"q{n}", "text": f"text {n}"} for n in range(queries)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in asked))
    judged = "".join(f"q{n}\t{prefix}d{n}\t1\n" for n in range(queries))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    if options:
        (folder / "suite.yaml").write_text(options)
    return folder


def sts_file(path):
    lines = "".join(f"{split}\t{n}\tone {n}\tother\n" for split in ("dev", "test") for n in range(5))
    path.write_text("split\tscore\tsentence1\tsentence2\n" + lines)
    return path


def test_a_folder_a_tsv_and_rows(tmp_path):
    assert open_suite(str(beir(tmp_path / "small"))).kind == "retrieval"
    assert open_suite(str(sts_file(tmp_path / "s.tsv")) + "@dev").name == "s-dev"
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"query": "q", "pos": ["a"], "neg": ["b"]}\n' * 2)
    assert open_suite(str(rows)).kind == open_suite(f"local-rank:{rows}").kind == "local-rank"
    assert open_suite(f"loss:{rows}").kind == "loss"


def test_a_role_may_be_given_but_a_final_suite_stays_one(tmp_path):
    assert open_suite(str(beir(tmp_path / "a")), role="final").role == "final"
    final = beir(tmp_path / "b", options="role: final\n")
    with pytest.raises(InputError, match="b is a final suite"):
        open_suite(str(final), role="dev")


def test_a_list_of_several_is_a_group_with_paths_beside_it(tmp_path):
    beir(tmp_path / "one")
    beir(tmp_path / "two", prefix="x")
    (tmp_path / "both.yaml").write_text("role: final\nmetric: mrr@10\nsuites:\n- one\n- {suite: two, name: second}\n")
    group = open_suite(str(tmp_path / "both.yaml"))
    assert isinstance(group, SuiteGroup)
    assert (group.name, group.role, group.metric, group.kind) == ("both", "final", "mrr@10", "retrieval")
    assert [one.name for one in group.members] == ["one", "second"]
    (tmp_path / "part.yaml").write_text("suites: [{suite: two, name: part, max_queries: 2, max_documents: 3}]\n")
    part = open_suite(str(tmp_path / "part.yaml"))
    assert (part.kind, len(part.members[0].queries), len(part.members[0].corpus)) == ("compact-retrieval", 2, 3)


def test_the_role_of_a_list_within_a_list_stays(tmp_path):
    beir(tmp_path / "one")
    (tmp_path / "inner.yaml").write_text("role: final\nsuites: [one]\n")
    (tmp_path / "outer.yaml").write_text("suites: [inner.yaml]\n")
    outer = open_suite(str(tmp_path / "outer.yaml"))
    assert (outer.role, [one.role for one in outer.members]) == ("final", ["final"])
    (tmp_path / "dev.yaml").write_text("role: dev\nsuites: [inner.yaml]\n")
    with pytest.raises(InputError, match="it has a final suite"):
        open_suite(str(tmp_path / "dev.yaml"))
    (tmp_path / "named.yaml").write_text("suites: [{suite: inner.yaml, name: x}]\n")
    with pytest.raises(InputError, match=r"inner\.yaml: name does not apply to a list of suites"):
        open_suite(str(tmp_path / "named.yaml"))


def test_a_folder_may_hold_the_list(tmp_path):
    beir(tmp_path / "set" / "one")
    (tmp_path / "set" / "suite.yaml").write_text("suites: [one]\n")
    group = open_suite(str(tmp_path / "set"))
    assert (group.name, len(group.members)) == ("set", 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("suites: [one, s.tsv]\n", "scores of retrieval and sts cannot be averaged"),
        ("suites: [one, one]\n", "two suites are named 'one'"),
        ("suites: [one, {suite: one, name: x}]\n", "'one' and 'x' have the same contents"),
        ("suites: [one, final]\n", r"roles differ \(one is neither, final is final\)"),
        ("role: dev\nsuites: [final]\n", "it has a final suite"),
        ("suites: [{suite: one, nmae: x}]\n", "unknown key 'suites.0.nmae'; did you mean 'name'"),
        ("name: ../up\nsuites: [one]\n", "the name '../up' cannot name a folder"),
        ("suites: [{suite: one, name: a/b}]\n", "the name 'a/b' cannot name a folder"),
        ("suites: one\n", "the key .suites. must be a list"),
        ("suites: [{suite: one, max_rows: 3}]\n", "one: max_rows does not apply to retrieval; remove it"),
        ("suites: [{suite: s.tsv, max_queries: 3}]\n", "max_queries does not apply to sts"),
        ("suites: [{suite: one, kind: sts}]\n", "one: it is retrieval, not sts"),
        ("suites: ['mteb:STSB']\n", "a list cannot have a task of mteb"),
        ("suites: [nowhere]\n", "no suite 'nowhere'"),
    ],
)
def test_a_bad_list_is_one_line(tmp_path, text, reason):
    beir(tmp_path / "one")
    beir(tmp_path / "final", options="role: final\n")
    sts_file(tmp_path / "s.tsv")
    (tmp_path / "list.yaml").write_text(text)
    with pytest.raises(InputError, match=reason):
        open_suite(str(tmp_path / "list.yaml"))


def test_a_name_that_is_nearly_one_is_suggested():
    with pytest.raises(InputError, match="did you mean nanobeir-compact"):
        open_suite("nanobeir-compct")


# What the hub's data sets look like, as `hf download --local-dir` leaves them.


def table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def mirrored(mirror, task: HubTask, documents=8, prefix=""):
    folder = mirror / task.repository
    corpus = [{"_id": f"d{n}", "title": f"T{n}", "text": f"{task.name} {n}"} for n in range(documents)]
    table(folder / f"{prefix}corpus" / f"{task.split}-00000-of-00001.parquet", corpus)
    queries = [{"_id": f"q{n}", "text": f"which {n}"} for n in range(4)]
    table(folder / f"{prefix}queries" / f"{task.split}-00000-of-00001.parquet", queries)
    judged = [{"query-id": f"q{n}", "corpus-id": f"d{n}", "score": 1} for n in range(3)]
    table(folder / f"{prefix}qrels" / f"{task.split}-00000-of-00001.parquet", judged)
    return folder


def test_nanobeir_is_read_from_a_mirror_offline(tmp_path):
    for task in CATALOG["nanobeir"].tasks:
        mirrored(tmp_path, task)
    group = open_suite("nanobeir", mirror=tmp_path)
    assert (group.kind, group.role, len(group.members)) == ("retrieval", "final", 13)
    one = group.members[0]
    assert (one.name, len(one.queries), len(one.corpus)) == ("NanoArguAna", 3, 8)
    assert one.corpus[0].title == "T0"
    assert one.source == {
        "dataset": "mteb/NanoArguAnaRetrieval",
        "revision": NANO["NanoArguAna"],
        "resolved_revision": None,
        "split": "train",
    }


def test_the_compact_suite_is_a_part_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("GEMMA4VEC_MIRROR", str(tmp_path))
    for task in CATALOG["nanobeir-compact"].tasks:
        mirrored(tmp_path, task, documents=1100)
    group = open_suite("nanobeir-compact")
    assert (group.kind, group.role) == ("compact-retrieval", "dev")
    assert [one.name for one in group.members] == [f"{name}-3x1000" for name in COMPACT]
    assert all(len(one.corpus) == 1000 and one.source["resolved_revision"] is None for one in group.members)


def test_another_language_has_its_own_tables(tmp_path):
    for task in CATALOG["nanobeir-de"].tasks:
        mirrored(tmp_path, task, prefix="de-")
    group = open_suite("nanobeir-de", mirror=tmp_path)
    assert group.members[0].name == "NanoArguAna-de"
    assert group.members[0].source["revision"] == NANO_TRANSLATED["NanoArguAna"]


def test_judgments_may_be_the_default_table_and_ids_called_id(tmp_path):
    task = CATALOG["germandpr"].tasks[0]
    folder = mirrored(tmp_path, task)
    (folder / "qrels").rename(folder / "data")
    table(folder / "corpus" / "test-00000-of-00001.parquet", [{"id": f"d{n}", "text": f"t {n}"} for n in range(3)])
    suite = open_suite("germandpr", mirror=tmp_path)
    assert (suite.name, suite.corpus_ids) == ("germandpr", ["d0", "d1", "d2"])


def test_german_sts_has_two_splits(tmp_path):
    folder = tmp_path / "mteb" / "GermanSTSBenchmark"
    for split in ("test", "validation"):
        rows = [{"sentence1": f"{split} {n}", "sentence2": "zwei", "score": float(n)} for n in range(5)]
        table(folder / "data" / f"{split}-00000-of-00001.parquet", rows)
    test, dev = (open_suite(name, mirror=tmp_path) for name in ("germansts", "germansts-dev"))
    assert (test.kind, test.role, test.first[0], dev.role, dev.first[0]) == (
        "sts",
        "final",
        "test 0",
        "dev",
        "validation 0",
    )


def test_the_readme_says_where_tables_are(tmp_path):
    task = CATALOG["germandpr"].tasks[0]
    folder = mirrored(tmp_path, task)
    (folder / "corpus").rename(folder / "elsewhere")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: corpus\n  data_files:\n  - {split: test, path: elsewhere/test-*}\n---\ntext\n"
    )
    assert len(open_suite("germandpr", mirror=tmp_path).corpus) == 8


def test_the_mirrors_revision_is_recorded_and_another_refused(tmp_path):
    task = CATALOG["germandpr"].tasks[0]
    notes = mirrored(tmp_path, task) / ".cache" / "huggingface" / "download" / "corpus"
    notes.mkdir(parents=True)
    (notes / "a.parquet.metadata").write_text(f"{task.revision}\netag\n1.0\n")
    assert open_suite("germandpr", mirror=tmp_path).source["resolved_revision"] == task.revision
    (notes / "b.parquet.metadata").write_text("0" * 40 + "\netag\n1.0\n")
    with pytest.raises(InputError, match="was downloaded at revision 000000000000"):
        open_suite("germandpr", mirror=tmp_path)


def test_without_hub_cache_and_mirror_the_line_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"mteb/GermanDPR is not cached .*HF_HUB_OFFLINE .*--mirror"):
        open_suite("germandpr", mirror=tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        open_suite("germandpr", mirror=tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "rows", "reason"),
    [
        ("corpus", [{"_id": "d0", "text": "a"}, {"_id": "d0", "text": "b"}], "'d0' occurs twice"),
        (
            "qrels",
            [{"query-id": "q0", "corpus-id": "unknown", "score": 1}],
            "name unknown ids, first document 'unknown'",
        ),
        ("qrels", [{"query-id": "q0", "corpus-id": "d0", "score": 1}] * 2, "judged twice"),
        ("qrels", [{"query-id": "q0", "corpus-id": "d0", "score": 0}], "no query has a judgment of 1"),
        ("queries", [{"_id": "q0", "query": "a"}], "lacks text"),
    ],
)
def test_a_bad_table_is_one_line(tmp_path, name, rows, reason):
    task = CATALOG["germandpr"].tasks[0]
    table(mirrored(tmp_path, task) / name / "test-00000-of-00001.parquet", rows)
    with pytest.raises(InputError, match=reason):
        open_suite("germandpr", mirror=tmp_path)


def test_the_catalogue_pins_every_task_to_a_commit_and_never_mixes_kinds():
    for known in CATALOG.values():
        assert known.tasks and known.role in ("dev", "final")
        assert all(len(task.revision) == 40 and set(task.revision) <= set("0123456789abcdef") for task in known.tasks)
        assert len({task.layout for task in known.tasks}) == 1
    assert len(CATALOG["nanobeir"].tasks) == 13
    rest, compact = ({task.name for task in CATALOG[name].tasks} for name in ("nanobeir-rest", "nanobeir-compact"))
    assert rest | compact == set(NANO) and not rest & compact


def test_pycode_is_the_held_out_code_of_this_machine(tmp_path, monkeypatch):
    built = tmp_path / "built"

    class EmbeddingModel:
        test, dev = beir(built / "test"), None

    monkeypatch.setattr("gemma4vec.data.loading.open_suite.load_or_build_pycode", lambda **_: EmbeddingModel())
    assert open_suite("pycode").fingerprint == load_suite(built / "test").fingerprint
    with pytest.raises(InputError, match="too little code"):
        open_suite("pycode-dev")


def test_a_suite_of_one_task_is_no_group(tmp_path):
    known = CATALOG["germandpr"]
    mirrored(tmp_path, known.tasks[0])
    assert not isinstance(open_suite("germandpr", mirror=tmp_path), SuiteGroup)


def test_a_spec_opens_the_same_from_another_folder(tmp_path, monkeypatch):
    (tmp_path / "rows.jsonl").write_text('{"query": "q", "pos": ["a"], "neg": ["b"]}\n' * 2)
    sts_file(tmp_path / "s.tsv")
    beir(tmp_path / "small")
    (tmp_path / "both.yaml").write_text("suites: [small]\n")
    specs = ["small", "./small", "s.tsv@dev", "rows.jsonl", "loss:rows.jsonl", "both.yaml"]
    monkeypatch.chdir(tmp_path)
    known = [open_suite(one) for one in specs]
    whole = [absolute_spec(one) for one in specs]
    assert whole[2] == f"{tmp_path}/s.tsv@dev" and whole[4] == f"loss:{tmp_path}/rows.jsonl"
    monkeypatch.chdir(tmp_path.parent)
    again = [open_suite(one) for one in whole]
    assert [(one.name, one.kind, one.fingerprint) for one in again] == [
        (one.name, one.kind, one.fingerprint) for one in known
    ]
    assert [absolute_spec(one) for one in whole] == whole


def test_a_name_stays_a_name_and_a_home_folder_becomes_whole(tmp_path, monkeypatch):
    assert [absolute_spec(one) for one in ("nanobeir", "mteb:Task", "gone.tsv@dev", "")] == [
        "nanobeir",
        "mteb:Task",
        "gone.tsv@dev",
        "",
    ]
    monkeypatch.setenv("HOME", str(tmp_path))
    beir(tmp_path / "small")
    assert absolute_spec("~/small") == str(tmp_path / "small")
