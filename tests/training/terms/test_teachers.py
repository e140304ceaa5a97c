"""Teachers in recipes: vectors from a file or a model, computed once; direct, projected and relational; refusals."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny_model import write_tiny
from tiny_run import RECIPE, make_stage, rows, write_rows_file

from gemma4vec.cli.main import execute
from gemma4vec.data.batching.batches import RowBatch
from gemma4vec.data.rows.rows import Row
from gemma4vec.errors import InputError
from gemma4vec.objective.matching import embedding_matching, relational_matching
from gemma4vec.objective.matryoshka import prefix
from gemma4vec.recipe import schema
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.recipe.terms import Matching
from gemma4vec.text.prompts import Document, as_document
from gemma4vec.training.loop import train_stage
from gemma4vec.training.terms import TERMS, teachers
from gemma4vec.training.terms.contrast_loss import ContrastLoss, RowContext


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base"), "gemma3", layers=2)


def vector_of(text: str, dimension: int) -> list[float]:
    generator = np.random.default_rng(list(text.encode()))
    found = generator.normal(size=dimension)
    return (found / np.linalg.norm(found)).tolist()


def vectors_file(path: Path, dimension: int, some: Sequence[Row] | None = None) -> Path:
    """Vectors of all texts of the rows of `tiny_run`."""
    lines = []
    for row in rows(2) if some is None else some:
        for text in (row.query, *(document.text for document in (*row.pos, *row.neg))):
            lines.append(json.dumps({"text": text, "vector": vector_of(text, dimension)}))
    path.write_text("\n".join(lines))
    return path


def matching(path: Path, **words: Any) -> dict[str, Any]:
    terms = [{"kind": "nce"}, {"kind": "matching", "weight": 0.5, "vectors": str(path), **words}]
    return {"terms": terms, "hard_negatives": 2}


def expected(stage: Any, batch: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The model's vectors of a batch's queries, positives and negatives, and the teacher's, text by text."""
    texts: RowBatch = batch.texts
    flat = [document for documents in texts.negatives for document in documents]
    own = stage.built.encoder(batch.groups[0]).split([8, 8, 16])
    words = [texts.queries, [d.text for d in texts.positives], [d.text for d in flat]]
    dimension = next(iter(stage.task.teachers.values())).model.dimension
    return list(own), [torch.tensor([vector_of(text, dimension) for text in kind]) for kind in words]


def test_a_direct_match_is_the_sum_over_queries_positives_and_negatives(base: Path, tmp_path: Path) -> None:
    dimension = make_stage(base, tmp_path).built.encoder.dimension
    file = vectors_file(tmp_path / "v.jsonl", dimension)
    for words in ({}, {"distance": "cosine", "texts": ["positives"]}, {"matryoshka": [dimension, 8]}):
        stage = make_stage(base, tmp_path, task=matching(file, **words), negatives=2)
        batch = next(stage.task.batches())
        own, teacher = expected(stage, batch)
        pairs = list(zip(own, teacher, strict=True))[1:2] if "texts" in words else list(zip(own, teacher, strict=True))
        lengths = words.get("matryoshka", [dimension])
        by_hand = sum(
            embedding_matching(prefix(o, d), prefix(t, d), distance=words.get("distance", "squared")).item()
            for o, t in pairs
            for d in lengths
        )
        loss = stage.task.loss(stage.built, batch)
        assert float(loss.terms["matching"]) == pytest.approx(by_hand, rel=1e-5)
        whole = float(loss.terms["nce"]) + 0.5 * float(loss.terms["matching"])
        assert loss.value.item() == pytest.approx(whole, rel=1e-6)


def test_other_dimensions_are_matched_by_relations_or_a_projection_that_is_trained(base: Path, tmp_path: Path) -> None:
    file = vectors_file(tmp_path / "v.jsonl", 5)
    stage = make_stage(base, tmp_path, task=matching(file, form="relational"), negatives=2)
    batch = next(stage.task.batches())
    own, teacher = expected(stage, batch)
    by_hand = relational_matching(torch.cat(own), torch.cat(teacher)).item()
    assert float(stage.task.loss(stage.built, batch).terms["matching"]) == pytest.approx(by_hand, rel=1e-5)
    stage = make_stage(
        base, tmp_path, task=matching(file, form="projection", projection_learning_rate=0.1), negatives=2
    )
    ((name, trained),) = stage.task.extra_parameters().items()
    assert name == "objective.matching.projection" and trained.learning_rate == 0.1
    assert trained.parameter.shape == (5, stage.built.encoder.dimension)
    start = trained.parameter.detach().clone()
    train_stage(stage, seed=0)
    assert (trained.parameter - start).abs().max() > 1e-3


def test_a_teacher_of_other_dimensions_without_a_projection_is_refused(base: Path, tmp_path: Path) -> None:
    file = vectors_file(tmp_path / "v.jsonl", 5)
    with pytest.raises(
        InputError, match=r"task\.terms\.1\.form: the teacher has 5 dimensions, the model \d+; use form"
    ):
        make_stage(base, tmp_path, task=matching(file), negatives=2)


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize("kind", ["jsonl", "parquet", "npy", "model", "run"])
def test_such_a_teacher_is_refused_before_a_weight_is_loaded(
    base: Path,
    tmp_path: Path,
    kind: str,
    dry: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    vector = {"text": "a", "vector": [0.6, 0.8]}
    (tmp_path / "v.jsonl").write_text(f"{json.dumps(vector)}\nno JSON: only the first vector is read")
    pq.write_table(pa.Table.from_pylist([vector]), tmp_path / "v.parquet")
    np.save(tmp_path / "v.npy", np.zeros((3, 2)))
    words, length = f"vectors: {tmp_path / 'v'}.{kind}", 2
    if kind in ("model", "run"):
        teacher, length = tmp_path / "teacher", 5
        settings = {"model": {"base": "x", "head": {"widths": [length]}}, "fingerprint": "1", "format": 2}
        (teacher / "model").mkdir(parents=True)
        (teacher / "model" / "gemma4vec.json").write_text(json.dumps(settings))
        (teacher / "manifest.json").write_text("{}")
        words = f"teacher: {teacher / 'model' if kind == 'model' else teacher}"

    def never(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", never)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(base=base, rows=write_rows_file(tmp_path / "rows.jsonl")))
    terms = f"stages.0.task.terms=[{{kind: nce}}, {{kind: matching, {words}}}]"
    out = ["--dry-run"] if dry else ["--out", str(tmp_path / "runs")]
    assert execute(["train", str(recipe), terms, *out]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said == (
        f"error: stages.0.task.terms.1.form: the teacher has {length} dimensions, the model 32; use form: projection, "
        "form: relational or form: listwise"
    )


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"text": "a"}', r"line 1: .*is needed"),
        ('{"text": "a", "vector": [1]}\n{"text": "b", "vector": [1, 2]}', r"line 2: a vector of 2, the others have 1"),
        ('{"text": "a", "vector": [1, 2]}', r"has no vector for the text 'read the file'; add it"),
        ("", r"has no vector"),
    ],
)
def test_a_file_that_lacks_something_is_refused(base: Path, tmp_path: Path, content: str, complaint: str) -> None:
    file = tmp_path / "v.jsonl"
    file.write_text(content)
    with pytest.raises(InputError, match=r"task\.terms\.1\.vectors: .*" + complaint):
        make_stage(base, tmp_path, task=matching(file, form="relational"), negatives=2)


def test_vectors_from_parquet_and_npy_are_those_of_json_lines(tmp_path: Path) -> None:
    texts = [("", "a"), ("T", "b"), ("", "c")]
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    lines = [
        {"text": text, "title": title or None, "vector": vector.tolist()}
        for (title, text), vector in zip(texts, vectors, strict=True)
    ]
    (tmp_path / "v.jsonl").write_text("\n".join(map(json.dumps, lines)))
    pq.write_table(pa.Table.from_pylist(lines), tmp_path / "v.parquet")
    np.save(tmp_path / "n.npy", vectors)
    (tmp_path / "n.jsonl").write_text('"a"\n{"text": "b", "title": "T"}\n{"text": "c"}')
    for name in ("v.jsonl", "v.parquet", "n.npy"):
        teacher = teachers.FileTeacher(str(tmp_path / name), "key")
        assert teacher.dimension == 4
        found = teacher.documents([Document("c"), Document("b", "T")])
        assert found.dtype == torch.float32 and torch.equal(found, torch.from_numpy(vectors[[2, 1]]))
        assert torch.equal(teacher.queries(["a"]), torch.from_numpy(vectors[:1]))
        with pytest.raises(InputError, match=r"no vector for the text 'b'; add it"):
            teacher.queries(["b"])  # it stands there with its title alone


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("none.npy", "none.npy: no such file"),
        ("none.parquet", "none.parquet: no such file"),
        ("text.npy", "cannot be read as .npy"),
        ("text.parquet", "cannot be read as Parquet"),
        ("flat.npy", r"floats \[texts, dimensions\] are needed, it has float64 \(3,\)"),
        ("short.npy", r"short.npy has 2 vectors, .*short.jsonl 1 texts"),
        ("nan.npy", "vector 2 has a value that is no finite number"),
        ("column.parquet", "has no column 'vector'; it has text"),
        ("uneven.parquet", r"row 2: a vector of 1, the others have 2 values"),
        ("nan.jsonl", "vector 1 has a value that is no finite number"),
        ("word.jsonl", "line 1: a vector is a list of numbers"),
    ],
)
def test_files_of_vectors_that_do_not_fit_are_refused(tmp_path: Path, name: str, complaint: str) -> None:
    for file in ("text.npy", "text.parquet"):
        (tmp_path / file).write_text("no such thing")
    np.save(tmp_path / "flat.npy", np.zeros(3))
    np.save(tmp_path / "short.npy", np.zeros((2, 2)))
    (tmp_path / "short.jsonl").write_text('"a"')
    if name == "nan.npy":
        np.save(tmp_path / "nan.npy", np.array([[0.0, 1.0], [np.nan, 1.0]]))
        (tmp_path / "nan.jsonl").write_text('"a"\n"b"')
    else:
        (tmp_path / "nan.jsonl").write_text('{"text": "a", "vector": [NaN]}')
    (tmp_path / "word.jsonl").write_text('{"text": "a", "vector": "high"}')
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "column.parquet")
    pq.write_table(pa.table({"text": ["a", "b"], "vector": [[1.0, 2.0], [1.0]]}), tmp_path / "uneven.parquet")
    with pytest.raises(InputError, match=r"^key: .*" + complaint):
        teachers.FileTeacher(str(tmp_path / name), "key")


class Counting:
    """Stands for a model: vectors of 7 dimensions, and how many texts it was asked for."""

    name, fingerprint, dimension = "counting", "counting", 7
    asked = 0

    @staticmethod
    def load(name: str) -> "Counting":
        return Counting()

    def describe(self) -> dict[str, Any]:
        return {}

    def encode_query(self, queries: Sequence[str], *, progress: Any = None) -> np.ndarray:
        Counting.asked += len(queries)
        return np.array([vector_of(text, 7) for text in queries], dtype=np.float32)

    def encode_document(self, documents: Sequence[str | Document], *, progress: Any = None) -> np.ndarray:
        return self.encode_query([as_document(document).text for document in documents])


def test_a_model_encodes_every_text_once_whatever_the_steps_and_runs(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teachers, "Embedder", Counting)
    task = {"terms": [{"kind": "matching", "teacher": "any", "form": "relational", "texts": ["queries", "positives"]}]}
    stage = make_stage(base, tmp_path, task=task)
    assert Counting.asked == 0  # nothing is drawn yet
    batch = next(stage.task.batches())
    assert Counting.asked == 24 + 24  # each query and positive of the rows, which the next batches draw
    found = stage.task.teachers["matching"].vectors(batch.texts)  # type: ignore[attr-defined]
    by_hand = torch.tensor([vector_of(text, 7) for text in batch.texts.queries])
    assert set(found) == {"queries", "positives"} and torch.allclose(found["queries"], by_hand.float())
    train_stage(stage, seed=0)
    next(make_stage(base, tmp_path, task=task).task.batches())
    assert Counting.asked == 48 and batch.rows == 8


def test_what_a_recipe_cannot_mean_is_refused() -> None:
    text = """
name: a
stages:
  - data: [{name: a, path: a.jsonl}, {name: b, path: b.jsonl}]
    task: {terms: [{kind: nce}, %s]}
    budget: {steps: 1}
"""
    for term, complaint in (
        ("{kind: matching}", "matching needs a teacher"),
        ("{kind: matching, teacher: x, vectors: y}", "matching needs a teacher"),
        ("{kind: matching, teacher: x, form: projection, matryoshka: [8]}", "a projection leads from whole vectors"),
        ("{kind: matching, teacher: x, texts: []}", "texts: name queries"),
        ("{kind: matching, teacher: x, weight: .nan}", r"terms\.1\.weight"),
        ("{kind: macthing}", "did you mean 'matching'"),
        ("{kind: gor, source_weights: {c: 1}}", r"terms\.1\.source_weights: no source is named 'c'; there are a, b"),
        ("{kind: gor, source_weights: {a: 1}}", r"set mixture\.one_source_batches=true"),
    ):
        with pytest.raises(InputError, match=complaint):
            parse_recipe(text % term, "my.yaml")


def test_terms_have_weights_of_their_own_in_batches_of_a_source() -> None:
    text = """
name: a
stages:
  - data: [{name: a, path: a.jsonl}, {name: b, path: b.jsonl}]
    mixture: {one_source_batches: true}
    task: {terms: [{kind: nce}, {kind: gor, weight: 2, source_weights: {a: 0.5}}]}
    budget: {steps: 1}
"""
    task = parse_recipe(text, "my.yaml").stages[0].task
    assert isinstance(task, schema.Contrast)
    values = {"nce": torch.tensor(1.0), "gor": torch.tensor(10.0)}
    loss, rows = ContrastLoss(task, 8), [RowContext(["a", "a"]), RowContext(["b", "b"]), RowContext()]
    assert [loss.weighted_sum(values, one).item() for one in rows] == [6.0, 21.0, 21.0]
    with pytest.raises(InputError, match="all terms have weight 0 in batches of source 'a'"):
        parse_recipe(text.replace("{kind: nce}, ", "").replace("a: 0.5", "a: 0"), "my.yaml")


@pytest.mark.parametrize("lengths", [None, [32, 16]])
def test_a_list_of_all_candidates_of_the_batch(base: Path, tmp_path: Path, lengths: list[int] | None) -> None:
    words = {"form": "listwise", "teacher_temperature": 0.2, "matryoshka": lengths}
    stage = make_stage(
        base,
        tmp_path,
        task=matching(vectors_file(tmp_path / "v.jsonl", 5), **words) | {"temperature": 0.3},
        negatives=2,
    )
    batch = next(stage.task.batches())
    (queries, *others), (teacher_queries, *teacher_others) = expected(stage, batch)
    by_hand = 0.0
    for length in lengths or [32]:
        own, its = (prefix(torch.cat(parts), length) if length else None for parts in ([queries], others))
        assert own is not None and its is not None and its.shape[0] == 3 * own.shape[0]
        wanted = torch.softmax(teacher_queries @ torch.cat(teacher_others).T / 0.2, 1)
        found = torch.log_softmax(own @ its.T / 0.3, 1)
        by_hand += float((wanted * (wanted.log() - found)).sum(1).mean())
    assert float(stage.task.loss(stage.built, batch).terms["matching"]) == pytest.approx(by_hand, rel=1e-4)
    assert not stage.task.extra_parameters()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            "form: listwise, texts: [queries, negatives]",
            "form: listwise ranks positives for queries; name both in texts",
        ),
        (
            "form: relational, teacher_temperature: 0.1",
            "teacher_temperature belongs to form: listwise; this one is rel",
        ),
        ("form: listwise, teacher_temperature: 0", r"terms\.0\.teacher_temperature|teacher_temperature"),
    ],
)
def test_a_list_that_a_recipe_cannot_mean(words: str, complaint: str) -> None:
    text = f"""
name: a
stages:
  - data: [{{name: a, path: a.jsonl}}]
    task: {{terms: [{{kind: matching, vectors: v, {words}}}]}}
    budget: {{steps: 1}}
"""
    with pytest.raises(InputError, match=complaint):
        parse_recipe(text, "my.yaml")


def test_a_teacher_is_asked_for_every_text_a_portion_at_a_time() -> None:
    some = [Row(f"q{n % 3}", [Document(f"p{n}"), Document("all")], [Document(f"n{n}")]) for n in range(10)]
    term = Matching(kind="matching", vectors="v.jsonl", texts=("queries", "positives"))
    settings = TERMS[term.kind].teacher(term)
    assert settings is not None
    portions = list(teachers.texts_of(settings, some, "key", size=4))
    assert [read for read, *_ in portions] == [3, 6, 9, 10]  # three rows have p0, p1, p2 and the text of all
    assert all(len(set(texts)) == len(texts) <= 4 for _, *both in portions for texts in both)
    assert {text for _, queries, _ in portions for text in queries} == {"q0", "q1", "q2"}
    assert {document.text for *_, documents in portions for document in documents} == {
        "all",
        *(f"p{n}" for n in range(10)),
    }


def test_a_teacher_is_little_ahead_of_the_first_batches_and_ever_further_later() -> None:
    asked: list[int] = []

    class Model(teachers.ModelTeacher):
        def __init__(self) -> None:
            self.name = "none"

        def prepare(self, queries: Sequence[str], documents: Sequence[Document]) -> bool:
            asked.append(len(queries))
            return True

    settings = TERMS["matching"].teacher(Matching(kind="matching", teacher="none", texts=("queries",)))
    assert settings is not None
    endless = (RowBatch([f"{n} {m}" for m in range(4)], [], [], 0) for n in range(10_000))
    read = teachers.encode_ahead([teachers.TermTeacher(settings, Model())], endless, 4)
    first = next(read)
    assert first.queries[0] == "0 0" and asked == [64]  # 128 texts: as many positives as queries
    for _ in range(15):
        next(read)
    assert asked == [64]
    next(read)
    assert asked == [64, 128]
    assert sum(1 for _ in read) == 10_000 - 17
    assert asked[2:7] == [256, 512, 1024, 2048, 2048] and sum(asked) == 40_000
