"""Terms of a loss: each is its function on the batch's vectors, the loss is their weighted sum, and all are logged."""

from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from tiny_model import write_tiny
from tiny_run import make_stage, rows
from torch import Tensor
from torch.nn import functional

from gemma4vec.errors import InputError
from gemma4vec.objective.false_negatives import TextHashes
from gemma4vec.objective.gor import gor
from gemma4vec.objective.matryoshka import prefix
from gemma4vec.objective.nce import false_negative_mask, info_nce, nce, self_contrast
from gemma4vec.recipe import schema
from gemma4vec.recipe.terms import AnyTerm
from gemma4vec.training.loop import train_stage
from gemma4vec.training.preflight import check_base
from gemma4vec.training.tasks.contrastive import ContrastTask
from gemma4vec.training.terms import TERMS
from gemma4vec.training.terms.base import Vectors
from gemma4vec.training.terms.contrast_loss import ContrastLoss


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base"), "gemma3", layers=2)


def unit(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(*shape, generator=generator), dim=-1).requires_grad_()


VECTORS = Vectors(unit(6, 8, seed=1), unit(6, 8, seed=2), unit(6, 2, 8, seed=3), {"positives": unit(6, 8, seed=4)})
KEYS = TextHashes(torch.tensor([1, 2, 3, 1, 4, 5]), torch.arange(10, 16), torch.arange(20, 32).view(6, 2))


def contrast(**task: Any) -> schema.Contrast:
    return schema.Contrast.model_validate({"temperature": 0.1, "hard_negatives": 2} | task)


def test_every_kind_of_term_in_a_recipe_has_its_class() -> None:
    settings = list(get_args(get_args(AnyTerm)[0]))
    kinds = {part.model_fields["kind"].default: part for part in settings}
    assert set(TERMS) == set(kinds) and len(kinds) == len(settings)
    for kind, term in TERMS.items():
        assert term.kind == kind and get_type_hints(term)["settings"] is kinds[kind]


def test_a_recipe_with_alpha_0_has_the_plain_loss_to_the_last_bit() -> None:
    for share in (True, False):
        task = contrast(share_hard_negatives=share, terms=[{"kind": "nce", "hardness": 0}])
        mask = false_negative_mask(KEYS.queries_N, KEYS.positives_N, KEYS.negatives_NK)
        q, p, h = VECTORS.queries_ND, VECTORS.positives_ND, VECTORS.negatives_NKD
        plain = info_nce(q, p, h, temperature=0.1, share_hard_negatives=share, false_negative_NM=mask)
        loss = ContrastLoss(task, 8)
        values = loss.values(VECTORS, KEYS)
        found = loss.weighted_sum(values)
        assert list(values) == ["nce"] and torch.equal(found, plain)
        for ours, theirs in zip(torch.autograd.grad(found, [q, p]), torch.autograd.grad(plain, [q, p]), strict=True):
            assert torch.equal(ours, theirs)


def test_each_term_is_its_function_and_the_loss_their_weighted_sum() -> None:
    options = {"query_query": True, "passage_passage": True, "symmetric": True, "false_negative_margin": 0.2}
    task = contrast(
        terms=[
            {"kind": "nce", "hardness": True, "share_hard_negatives": False, "matryoshka": [8, 4], "weight": 2.0},
            {"kind": "nce", "name": "wide", "temperature": 0.3, **options},
            {"kind": "gor", "weight": 0.5, "matryoshka": [4, 2], "matryoshka_weights": [1.0, 0.25]},
            {"kind": "gor", "name": "spread", "form": "spread_out", "weight": 0.0},
            {"kind": "self_contrast", "temperature": 0.2},
        ]
    )
    q, p, h = VECTORS.queries_ND, VECTORS.positives_ND, VECTORS.negatives_NKD
    assert h is not None
    expected = {
        "nce": sum(
            nce(
                prefix(q, d),
                prefix(p, d),
                prefix(h, d),
                temperature=0.1,
                text_hashes=KEYS,
                hardness=5.0,
                share_hard_negatives=False,
            )
            for d in (8, 4)
        ),
        "wide": nce(q, p, h, temperature=0.3, text_hashes=KEYS, **options),  # type: ignore[arg-type]
        "gor": sum(w * (gor(prefix(q, d)) + gor(prefix(p, d))) for d, w in ((4, 1.0), (2, 0.25))),
        "spread": gor(q, "spread_out") + gor(p, "spread_out"),
        "self_contrast": self_contrast(p, VECTORS.views["positives"], temperature=0.2, text_hashes_N=KEYS.positives_N),
    }
    loss = ContrastLoss(task, 8)
    values = loss.values(VECTORS, KEYS)
    assert list(values) == list(expected)
    for name, value in expected.items():
        assert torch.equal(values[name], torch.as_tensor(value)), name
    total = 2.0 * values["nce"] + values["wide"] + 0.5 * values["gor"] + values["self_contrast"]
    assert loss.weighted_sum(values).item() == pytest.approx(total.item(), rel=1e-6)


def test_every_step_says_what_its_loss_is_made_of(base: Path, tmp_path: Path) -> None:
    terms = [
        {"kind": "nce", "matryoshka": [16, 8]},
        {"kind": "gor", "weight": 0.25},
        {"kind": "self_contrast", "name": "views", "texts": "queries", "weight": 0.5},
    ]
    stage = make_stage(base, tmp_path, task={"terms": terms}, lora={"dropout": 0.3}, batch={"accumulate": 2})
    train_stage(stage, seed=0)
    steps = stage.run.events("step")
    for step in steps:
        found = step["terms"]
        assert list(found) == ["nce", "gor", "views"]
        assert step["loss"] == pytest.approx(found["nce"] + 0.25 * found["gor"] + 0.5 * found["views"], rel=1e-5)
    plain = make_stage(base, tmp_path / "plain", lora={"dropout": 0.3}, batch={"accumulate": 2})
    train_stage(plain, seed=0)
    plain_steps = plain.run.events("step")
    assert "terms" not in plain_steps[0]
    assert steps[0]["tokens"] > 1.2 * plain_steps[0]["tokens"]  # the second views are read too


def test_two_views_differ_by_dropout_alone_and_both_are_trained(base: Path, tmp_path: Path) -> None:
    stage = make_stage(base, tmp_path, task={"terms": [{"kind": "self_contrast"}]}, lora={"dropout": 0.5})
    with torch.no_grad():
        for name, parameter in stage.built.trainable().items():
            if "lora_B" in name:  # zero at first: the adapters' dropout then changes nothing
                parameter.fill_(0.1)
    batch = next(stage.task.batches())
    first = stage.built.encoder(batch.groups[0])[8:16]
    second = stage.built.encoder(batch.views["positives"])
    assert first.shape == second.shape and (first - second).abs().max() > 1e-4
    stage.built.encoder.eval()
    first = stage.built.encoder(batch.groups[0])[8:16]
    torch.testing.assert_close(stage.built.encoder(batch.views["positives"]), first, rtol=0, atol=1e-5)


def test_terms_that_a_model_cannot_have_are_refused_with_key_and_limit(base: Path, tmp_path: Path) -> None:
    views = [{"kind": "nce"}, {"kind": "self_contrast"}]
    with pytest.raises(InputError, match=r"task\.terms\.1: self_contrast compares two dropout views.*lora\.dropout"):
        make_stage(base, tmp_path, task={"terms": views})
    stage = make_stage(base, tmp_path / "fits")
    dimension = stage.built.encoder.dimension
    long = schema.Contrast.model_validate({"terms": [{"kind": "gor", "matryoshka": [dimension, dimension + 1]}]})
    wanted = rf"task\.terms\.0\.matryoshka: {dimension + 1} is above the model's {dimension} dimensions"
    with pytest.raises(InputError, match=wanted):
        ContrastTask.make(stage.settings.model_copy(update={"task": long}), rows(), stage.built, max_tokens=48, seed=0)


@pytest.mark.parametrize(("head", "length"), [({"widths": [32, 6]}, 6), (None, 32)])
def test_prefixes_longer_than_vectors_are_refused_before_weights_are_loaded(
    base: Path, head: dict[str, Any] | None, length: int
) -> None:
    recipe = schema.Recipe.model_validate(
        {
            "name": "long",
            "model": {"base": str(base), "head": head, "max_tokens": 48},
            "stages": [
                {
                    "data": [{"name": "a", "path": "a.jsonl"}],
                    "batch": {"rows": 4},
                    "budget": {"steps": 1},
                    "task": {"terms": [{"kind": "nce", "matryoshka": [6, length + 1]}]},
                }
            ],
        }
    )
    with pytest.raises(
        InputError, match=rf"terms\.0\.matryoshka: {length + 1} is above the model's {length} dimensions"
    ):
        check_base(recipe, base)
