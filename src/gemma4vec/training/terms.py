"""The terms of a contrast's loss, as a recipe names them, on the vectors of a batch.

Shapes: N rows, K hard negatives a row, D dimensions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gemma4vec.errors import InputError
from gemma4vec.model.encoder import TextEncoder
from gemma4vec.objective.duplicates import Keys
from gemma4vec.objective.gather import gather_rows
from gemma4vec.objective.gor import gor
from gemma4vec.objective.matching import embedding_matching, relational_matching
from gemma4vec.objective.matryoshka import check_dimensions, matryoshka
from gemma4vec.objective.nce import nce, self_contrast
from gemma4vec.recipe import schema
from gemma4vec.recipe.terms import Gor, Matching, Nce, SelfContrast
from gemma4vec.training.learned import Learned


@dataclass(frozen=True)
class Vectors:
    """Unit vectors of a batch; `views` are second views, `[N, D]` each, by whose they are."""

    queries_ND: Tensor
    positives_ND: Tensor
    negatives_NKD: Tensor | None
    views: Mapping[str, Tensor]

    def of(self, texts: str) -> Tensor | None:
        """Those of `queries`, `positives` or `negatives`, row after row: `[N, D]` or `[N*K, D]`."""
        if texts == "negatives":
            return None if self.negatives_NKD is None else self.negatives_NKD.flatten(0, 1)
        return self.queries_ND if texts == "queries" else self.positives_ND


# Of each term with a teacher, by its name: the teacher's vectors of `queries`, `positives`, `negatives`.
Teachers = Mapping[str, Mapping[str, Tensor]]


def gathered(own: Vectors, counts: Sequence[int]) -> Vectors:
    """The vectors of all processes, of which each has `counts` rows, in one gather: so many exchanges, one order."""
    k = 0 if own.negatives_NKD is None else own.negatives_NKD.shape[1]
    parts = [own.queries_ND[:, None], own.positives_ND[:, None], *(view_ND[:, None] for view_ND in own.views.values())]
    parts += [] if own.negatives_NKD is None else [own.negatives_NKD]
    rows_NVD = gather_rows(torch.cat(parts, dim=1), counts)
    queries, positives, *views, negatives_NKD = rows_NVD.split([1] * (2 + len(own.views)) + [k], dim=1)
    names = dict(zip(own.views, (view_N1D[:, 0] for view_N1D in views), strict=True))
    return Vectors(queries[:, 0], positives[:, 0], negatives_NKD if k else None, names)


def term_values(
    task: schema.Contrast,
    vectors: Vectors,
    keys: Keys,
    learned: Learned | None = None,
    teachers: Teachers | None = None,
) -> dict[str, Tensor]:
    """Each term's value by name, unweighted, with a graph; the loss is `weighted_sum` of them."""
    values = {}
    for term in task.terms:
        if isinstance(term, Matching):
            projection_ED = None if learned is None else learned.projection(term.label)
            values[term.label] = _matched(term, vectors, (teachers or {})[term.label], projection_ED)
        else:
            values[term.label] = _value(term, task, vectors, keys, learned)
    return values


def weighted_sum(task: schema.Contrast, values: Mapping[str, Tensor], source: str | None = None) -> Tensor:
    """The loss: each term times its weight. What has weight 0 has no gradient, even where it is not finite.

    `source` is where all rows of the batch come from, for terms with weights of their own there.
    """
    weights = {term.label: term.weight_in(source) for term in task.terms}
    return torch.stack([weight * values[label] for label, weight in weights.items() if weight]).sum()


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


def check_dropout(task: schema.Contrast, encoder: TextEncoder, where: str = "task") -> None:
    """Refuse self-contrast on a model whose two views of a text would be the same.

    Raises:
        InputError: nothing in the model drops anything.
    """
    number = next((n for n, term in enumerate(task.terms) if term.kind == "self_contrast"), None)
    if number is not None and not encoder.drops:
        raise InputError(
            f"{where}.terms.{number}: self_contrast compares two dropout views of a text, and this model has no "
            "dropout; set model.lora.dropout=0.1"
        )


def _matched(term: Matching, vectors: Vectors, teacher: Mapping[str, Tensor], projection_ED: Tensor | None) -> Tensor:
    """The distance to a teacher: summed over queries, positives and negatives; relational, among all of them.

    In Matryoshka's prefixes a direct match is with the teacher's own prefix, a relational one with the whole teacher.
    """
    pairs = [(own, teacher[texts]) for texts in term.texts if (own := vectors.of(texts)) is not None]
    if term.form == "relational":
        student_ND, teacher_NE = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        lengths = term.matryoshka or (student_ND.shape[1],)
        return matryoshka(
            lambda own: relational_matching(own, teacher_NE), [student_ND], lengths, term.matryoshka_weights
        )

    def distance(own_ND: Tensor, its_NE: Tensor) -> Tensor:
        return embedding_matching(own_ND, its_NE, projection_ED, distance=term.distance)

    if term.matryoshka is None:
        return torch.stack([distance(own, its.to(own)) for own, its in pairs]).sum()
    values = [matryoshka(distance, [o, t.to(o)], term.matryoshka, term.matryoshka_weights) for o, t in pairs]
    return torch.stack(values).sum()


def _value(
    term: Nce | Gor | SelfContrast, task: schema.Contrast, vectors: Vectors, keys: Keys, learned: Learned | None
) -> Tensor:
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
        temperature: float | Tensor = task.temperature if term.temperature is None else term.temperature
        if term.temperature is None and learned is not None:
            temperature = learned.temperature()
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
