"""The terms of a contrast's loss, as a recipe names them, on the vectors of a batch.

Shapes: N rows, K hard negatives a row, D dimensions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gemma4vec.errors import InputError
from gemma4vec.objective.duplicates import Keys
from gemma4vec.objective.gather import gather_rows
from gemma4vec.objective.gor import gor
from gemma4vec.objective.matryoshka import check_dimensions, matryoshka
from gemma4vec.objective.nce import nce, self_contrast
from gemma4vec.recipe import schema
from gemma4vec.recipe.terms import AnyTerm, Gor, Nce


@dataclass(frozen=True)
class Vectors:
    """Unit vectors of a batch; `views` are second views, `[N, D]` each, by whose they are."""

    queries_ND: Tensor
    positives_ND: Tensor
    negatives_NKD: Tensor | None
    views: Mapping[str, Tensor]


def gathered(own: Vectors, counts: Sequence[int]) -> Vectors:
    """The vectors of all processes, of which each has `counts` rows, in one gather: so many exchanges, one order."""
    k = 0 if own.negatives_NKD is None else own.negatives_NKD.shape[1]
    parts = [own.queries_ND[:, None], own.positives_ND[:, None], *(view_ND[:, None] for view_ND in own.views.values())]
    parts += [] if own.negatives_NKD is None else [own.negatives_NKD]
    rows_NVD = gather_rows(torch.cat(parts, dim=1), counts)
    queries, positives, *views, negatives_NKD = rows_NVD.split([1] * (2 + len(own.views)) + [k], dim=1)
    names = dict(zip(own.views, (view_N1D[:, 0] for view_N1D in views), strict=True))
    return Vectors(queries[:, 0], positives[:, 0], negatives_NKD if k else None, names)


def term_values(task: schema.Contrast, vectors: Vectors, keys: Keys) -> dict[str, Tensor]:
    """Each term's value by name, unweighted, with a graph; the loss is `weighted_sum` of them."""
    return {term.label: _value(term, task, vectors, keys) for term in task.terms}


def weighted_sum(task: schema.Contrast, values: Mapping[str, Tensor]) -> Tensor:
    """The loss: each term times its weight. What has weight 0 has no gradient, even where it is not finite."""
    trained = [term.weight * values[term.label] for term in task.terms if term.weight]
    return torch.stack(trained).sum()


def wanted_views(task: schema.Contrast) -> list[str]:
    """Of which texts a second view is needed: queries, positives, both or neither."""
    return sorted({term.texts for term in task.terms if term.kind == "self_contrast"})


def check_terms(task: schema.Contrast, dimension: int, where: str = "task") -> None:
    """Refuse Matryoshka prefixes longer than the model's vectors.

    Raises:
        InputError: the key and the limit.
    """
    for number, term in enumerate(task.terms):
        if term.matryoshka is not None:
            check_dimensions(term.matryoshka, dimension, f"{where}.terms.{number}.matryoshka")


def check_dropout(task: schema.Contrast, encoder: nn.Module, where: str = "task") -> None:
    """Refuse self-contrast on a model whose two views of a text would be the same.

    Raises:
        InputError: nothing in the model drops anything.
    """
    number = next((n for n, term in enumerate(task.terms) if term.kind == "self_contrast"), None)
    drops = any(isinstance(module, nn.Dropout) and module.p > 0 for module in encoder.modules())
    if number is not None and not drops:
        raise InputError(
            f"{where}.terms.{number}: self_contrast compares two dropout views of a text, and this model has no "
            "dropout; set model.lora.dropout=0.1"
        )


def _value(term: AnyTerm, task: schema.Contrast, vectors: Vectors, keys: Keys) -> Tensor:
    parts: list[Tensor | None]
    queries_ND, positives_ND = vectors.queries_ND, vectors.positives_ND
    if isinstance(term, Nce):
        parts = [queries_ND, positives_ND, vectors.negatives_NKD]
    elif isinstance(term, Gor):
        parts = [queries_ND, positives_ND]
    else:
        parts = [queries_ND if term.texts == "queries" else positives_ND, vectors.views[term.texts]]

    def loss(first_Nd: Tensor, second_Nd: Tensor, negatives_NKd: Tensor | None = None) -> Tensor:
        if isinstance(term, Gor):
            return gor(first_Nd, term.form) + gor(second_Nd, term.form)
        temperature = task.temperature if term.temperature is None else term.temperature
        if not isinstance(term, Nce):
            texts_N = keys.queries_N if term.texts == "queries" else keys.positives_N
            return self_contrast(first_Nd, second_Nd, temperature=temperature, keys=texts_N)
        shared = task.share_hard_negatives if term.share_hard_negatives is None else term.share_hard_negatives
        return nce(
            first_Nd,
            second_Nd,
            negatives_NKd,
            temperature=temperature,
            share_hard_negatives=shared,
            hardness=term.hardness,
            query_query=term.query_query,
            passage_passage=term.passage_passage,
            symmetric=term.symmetric,
            false_negative_margin=term.false_negative_margin,
            keys=keys,
        )

    if term.matryoshka is None:
        return loss(*parts)  # type: ignore[arg-type]
    return matryoshka(loss, parts, term.matryoshka, term.matryoshka_weights)
