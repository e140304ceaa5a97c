"""Terms on the rows' scores, and rows that weigh differently by their source: by the formula, row by row."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import write_tiny
from tiny_run import make_stage, rows
from torch import Tensor
from torch.nn import functional

from gemma4vec.data.batching.mixture import MixedRows, Part
from gemma4vec.data.loading.load_rows import TrainingData
from gemma4vec.data.rows.rows import Row
from gemma4vec.data.rows.scores import Scores
from gemma4vec.errors import InputError
from gemma4vec.objective.false_negatives import TextHashes
from gemma4vec.recipe import schema
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.training.loop import train_stage
from gemma4vec.training.preflight import check_data
from gemma4vec.training.tasks.contrastive import ContrastTask
from gemma4vec.training.terms.base import Vectors
from gemma4vec.training.terms.contrast_loss import ContrastLoss, RowContext

N, K, D = 6, 2, 8
KEYS = TextHashes(torch.arange(N), 100 + torch.arange(N), 200 + torch.arange(N * K).view(N, K))
SOURCES = ["a", "a", "b", "c", "b", "a"]
WEIGHTS = {"a": 0.5, "b": 3.0, "c": 0.0}


def unit(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(*shape, D, generator=generator, dtype=torch.float64)
    return functional.normalize(found, dim=-1).requires_grad_()


def vectors() -> Vectors:
    return Vectors(unit(N, seed=1), unit(N, seed=2), unit(N, K, seed=3), {"positives": unit(N, seed=4)})


def contrast(*terms: dict[str, Any]) -> schema.Contrast:
    return schema.Contrast.model_validate({"terms": terms, "hard_negatives": K, "temperature": 0.2})


def values(task: schema.Contrast, own: Vectors, context: RowContext) -> dict[str, Tensor]:
    return ContrastLoss(task, D).values(own, KEYS, rows=context)


def candidates(own: Vectors) -> Tensor:
    assert own.negatives_NKD is not None
    both = torch.cat([own.positives_ND[:, None], own.negatives_NKD], dim=1)
    return (own.queries_ND[:, None] * both).sum(-1)


def scores() -> list[list[float] | None]:
    generator = torch.Generator().manual_seed(9)
    found: list[list[float] | None] = (4 * torch.randn(N, 1 + K, generator=generator)).tolist()
    return found


def test_kl_and_margin_mse_are_their_formulas_over_a_rows_own_candidates() -> None:
    own, context = vectors(), RowContext.of([], scores(), K)
    assert context.scores_NC is not None
    teacher = context.scores_NC.double()
    kl = {"kind": "kl", "temperature": 0.1, "teacher_temperature": 2.0}
    found = values(contrast(kl, {"kind": "margin_mse", "teacher_scale": 0.05}), own, context)
    p, q = (teacher / 2.0).softmax(1), (candidates(own) / 0.1).softmax(1)
    by_hand = sum(float(p[n, c] * (p[n, c] / q[n, c]).log()) for n in range(N) for c in range(1 + K)) / N
    assert found["kl"].item() == pytest.approx(by_hand, rel=1e-6)
    s, t = candidates(own), 0.05 * teacher
    margins = [((s[n, 0] - s[n, 1 + k]) - (t[n, 0] - t[n, 1 + k])).item() ** 2 for n in range(N) for k in range(K)]
    assert found["margin_mse"].item() == pytest.approx(sum(margins) / len(margins), rel=1e-6)
    # Without a temperature of its own it has the task's; prefixes are at unit length again.
    whole = values(contrast({"kind": "kl"}), own, context)["kl"]
    named = values(contrast({"kind": "kl", "temperature": 0.2, "matryoshka": [D, 4]}), own, context)["kl"]
    assert whole.item() < named.item()


def test_a_teacher_that_scores_as_the_model_does_leaves_nothing_to_learn() -> None:
    own = vectors()
    context = RowContext([], candidates(own).detach())
    found = values(contrast({"kind": "kl", "teacher_temperature": 0.2}, {"kind": "margin_mse"}), own, context)
    for value in found.values():
        assert value.item() == pytest.approx(0.0, abs=1e-12)
        (gradient,) = torch.autograd.grad(value, [own.queries_ND], retain_graph=True)
        assert gradient.abs().max() < 1e-9


@pytest.mark.parametrize(
    "term",
    [
        {"kind": "nce"},
        {"kind": "nce", "hardness": True, "symmetric": True, "query_query": True, "matryoshka": [D, 4]},
        {"kind": "self_contrast"},
        {"kind": "kl"},
        {"kind": "margin_mse", "matryoshka": [4]},
        {"kind": "triplet", "margin": 0.5, "distance": "l2", "matryoshka": [D, 4]},
        {"kind": "matching", "vectors": "v.jsonl", "distance": "l2"},
        {"kind": "matching", "vectors": "v.jsonl", "matryoshka": [D, 4]},
    ],
)
def test_rows_of_a_mixed_batch_weigh_as_their_sources_say(term: dict[str, Any]) -> None:
    """Against the loss of one-row weights, added up: weights are linear, and a row of weight 0 has no gradient."""
    own, given = vectors(), scores()
    given[3] = None  # the row of weight 0 needs no scores
    teachers = {
        term["kind"]: {"queries": unit(N, seed=5), "positives": unit(N, seed=6), "negatives": unit(N * K, seed=7)}
    }

    def loss(weights: dict[str, float], sources: list[str]) -> Tensor:
        task = contrast(term | {"source_weights": weights})
        objective, context = ContrastLoss(task, D), RowContext.of(sources, given, K)
        return objective.weighted_sum(objective.values(own, KEYS, teachers, context), context)

    parts: list[Tensor | None] = [own.queries_ND, own.positives_ND, own.negatives_NKD, own.views["positives"]]
    found = loss(WEIGHTS, SOURCES)
    one_by_one = torch.zeros(())
    for n, source in enumerate(SOURCES):
        if WEIGHTS[source]:
            names = [str(m) for m in range(N)]
            one_by_one = one_by_one + WEIGHTS[source] * loss({str(m): float(m == n) for m in range(N)}, names)
    torch.testing.assert_close(found, one_by_one.to(found), rtol=1e-6, atol=1e-9)
    whole = torch.autograd.grad(found, parts, allow_unused=True, retain_graph=True)  # type: ignore[arg-type]
    summed = torch.autograd.grad(one_by_one, parts, allow_unused=True)  # type: ignore[arg-type]
    for one, other in zip(whole, summed, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)
    if term["kind"] in ("kl", "margin_mse", "matching", "triplet"):  # no other row's loss sees this one
        assert whole[0] is not None and torch.equal(whole[0][3], torch.zeros(D, dtype=torch.float64))
    # Weights that are all alike are the term's one weight.
    torch.testing.assert_close(loss({"a": 2.0}, ["a"] * N), 2.0 * loss({"b": 1.0}, ["b"] * N), rtol=1e-12, atol=0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base"), "gemma3", layers=2)


def scored_rows() -> list[Row]:
    return [
        Row(row.query, row.pos, row.neg, scores=Scores((5.0,), (1.0, 0.5), "judge")) if n != 7 else row
        for n, row in enumerate(rows(2))
    ]


def test_a_stage_learns_from_scores_and_refuses_rows_without_them(base: Path, tmp_path: Path) -> None:
    terms = [{"kind": "kl"}, {"kind": "margin_mse", "teacher_scale": 0.1, "name": "margins"}]
    plain = make_stage(base, tmp_path, negatives=2, task={"hard_negatives": 2})
    task = schema.Contrast.model_validate({"terms": terms, "hard_negatives": 2, "temperature": 0.1})
    settings = plain.settings.model_copy(update={"task": task})
    with pytest.raises(InputError, match=r"task\.terms\.0: kl learns from the rows' `scores`, and 1 of 24 rows have"):
        ContrastTask.make(settings, scored_rows(), plain.built, max_tokens=48, seed=0)
    with pytest.raises(InputError, match=r"stages\.2\.task\.terms\.0: .* first row 8 \('.*'\); add them \(gemma4vec"):
        check_data(2, settings, TrainingData(scored_rows()))
    some = scored_rows()
    parts = MixedRows([Part("with", some[:7] + some[8:]), Part("without", some[7:8])])
    weighed = [term | {"source_weights": {"without": 0}} for term in terms]
    task = schema.Contrast.model_validate({"terms": weighed, "hard_negatives": 2, "temperature": 0.1})
    settings = plain.settings.model_copy(update={"task": task})
    plain.task = ContrastTask.make(settings, parts, plain.built, max_tokens=48, seed=0)
    check_data(0, settings, TrainingData(parts))
    train_stage(plain, seed=0)
    events = list(plain.run.events("step"))
    assert set(events[-1]["terms"]) == {"kl", "margins"} and events[-1]["loss"] < events[0]["loss"]


def test_what_a_recipe_cannot_mean_is_refused() -> None:
    text = """
name: a
stages:
  - data: [{name: a, path: a.jsonl}, {name: b, path: b.jsonl}]
    task: {hard_negatives: 1, terms: [{kind: nce}, %s]}
    budget: {steps: 1}
"""
    for term, complaint in (
        ("{kind: kl, teacher_temperature: 0}", r"terms\.1\.teacher_temperature"),
        ("{kind: margin_mse, teacher_scale: .nan}", r"terms\.1\.teacher_scale"),
        ("{kind: margin_mes}", "did you mean 'margin_mse'"),
        ("{kind: triplet, margin: 2.5}", r"terms\.1\.triplet\.margin|terms\.1\.margin"),
        ("{kind: gor, source_weights: {a: 1}}", "gor is of all pairs of a batch, not row by row"),
        ("{kind: matching, vectors: v, form: relational, source_weights: {a: 1}}", "matching is of all pairs"),
    ):
        with pytest.raises(InputError, match=complaint):
            parse_recipe(text % term, "my.yaml")
    with pytest.raises(
        InputError, match="triplet compares a row's positive with its own hard negatives, hard_negatives i"
    ):
        parse_recipe(text.replace("hard_negatives: 1, ", "") % "{kind: triplet}", "my.yaml")
    with pytest.raises(InputError, match="kl compares a row's positive with its own hard negatives"):
        parse_recipe(text.replace("hard_negatives: 1, ", "") % "{kind: kl}", "my.yaml")
    task = parse_recipe(text % "{kind: kl, source_weights: {a: 2}}", "my.yaml").stages[0].task
    assert isinstance(task, schema.Contrast) and json.loads(task.model_dump_json())["terms"][1]["kind"] == "kl"
