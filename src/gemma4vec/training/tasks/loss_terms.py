"""The terms of a contrast's loss, as a recipe names them, on the vectors of a batch.

Shapes: N rows, K hard negatives a row, C = 1 + K candidates, D dimensions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gemma4vec.data.rows.lazy_rows import as_lazy_rows
from gemma4vec.data.rows.rows import Row
from gemma4vec.errors import InputError
from gemma4vec.machine.transfer import to_device
from gemma4vec.model.encoder.encoder import TextEncoder
from gemma4vec.objective.false_negatives import TextHashes
from gemma4vec.objective.gather import gather_rows
from gemma4vec.objective.gor import gor
from gemma4vec.objective.matching import (
    embedding_matching,
    margin_mse,
    relational_matching,
    score_candidates,
    score_distillation,
)
from gemma4vec.objective.matryoshka import check_dimensions, matryoshka
from gemma4vec.objective.nce import nce, self_contrast
from gemma4vec.recipe import schema
from gemma4vec.recipe.terms import AnyTerm, Gor, Kl, MarginMse, Matching, Nce, OnScores, SelfContrast
from gemma4vec.training.tasks.learned_parameters import ObjectiveParameters


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


@dataclass(frozen=True)
class RowContext:
    """What the data says of a batch's rows: `sources` names the source of each (empty: nothing is known), `scores_NC`
    are a teacher's scores of its candidates, NaN in rows that have none (None: no row has)."""

    sources: Sequence[str] = ()
    scores_NC: Tensor | None = None

    @staticmethod
    def of(sources: Sequence[str], scores: Sequence[Sequence[float] | None], hard_negatives: int) -> "RowContext":
        """From rows' lists of scores."""
        if not any(row is not None for row in scores):
            return RowContext(sources)
        none = [float("nan")] * (1 + hard_negatives)
        return RowContext(sources, torch.tensor([none if row is None else list(row) for row in scores]))

    def weights(self, term: AnyTerm) -> tuple[float, Tensor | None]:
        """A term's mean weight over the rows, and each row's share of it, `[N]` of mean 1; None: all are 1."""
        weights = [term.weight_in(source) for source in self.sources] or [term.weight_in(None)]
        if len(set(weights)) == 1:
            return weights[0], None
        mean = sum(weights) / len(weights)
        return mean, torch.tensor(weights) / mean


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
    keys: TextHashes,
    learned: ObjectiveParameters | None = None,
    teachers: Teachers | None = None,
    said: RowContext = RowContext(),
) -> dict[str, Tensor]:
    """Each term's value by name, before its weight, with a graph; the loss is `weighted_sum` of them.

    Where rows of several sources weigh differently in a term, its value is the weighted mean over them.
    """
    values = {}
    for term in task.terms:
        shares_N = said.weights(term)[1]
        shares_N = None if shares_N is None else to_device(shares_N, vectors.queries_ND.device)
        if isinstance(term, Matching):
            projection_ED = None if learned is None else learned.projection(term.label)
            values[term.label] = _matched(term, vectors, (teachers or {})[term.label], projection_ED, shares_N)
        elif isinstance(term, OnScores):
            values[term.label] = _on_scores(term, task, vectors, said.scores_NC, learned, shares_N)
        else:
            values[term.label] = _value(term, task, vectors, keys, learned, shares_N)
    return values


def weighted_sum(task: schema.Contrast, values: Mapping[str, Tensor], said: RowContext = RowContext()) -> Tensor:
    """The loss: each term times its mean weight over the rows. What has weight 0 has no gradient, even where it is not
    finite."""
    weights = {term.label: said.weights(term)[0] for term in task.terms}
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


def check_scores(task: schema.Contrast, rows: Sequence[Row], where: str = "task") -> None:
    """Refuse terms on a teacher's scores where rows that they are trained on have none.

    Raises:
        InputError: the key, and the first such row.
    """
    wanted = [(number, term) for number, term in enumerate(task.terms) if isinstance(term, OnScores)]
    if not wanted:
        return
    lazy = as_lazy_rows(rows)
    scored_R = lazy.has_scores()
    for number, term in wanted:
        asked_R = np.ones(len(rows), dtype=np.bool_)
        for source, span in lazy.source_spans():
            asked_R[span] = term.source_weights is None or term.weight_in(source) > 0
        missing = np.flatnonzero(asked_R & ~scored_R)
        if len(missing):
            raise InputError(
                f"{where}.terms.{number}: {term.kind} learns from the rows' `scores`, and {len(missing):,} of "
                f"{len(rows):,} rows have none, first row {missing[0] + 1} ({rows[int(missing[0])].query[:40]!r}); add "
                "them (gemma4vec data mine --scores), or give their source weight 0 in the term's source_weights"
            )


def _on_scores(
    term: Kl | MarginMse,
    task: schema.Contrast,
    vectors: Vectors,
    scores_NC: Tensor | None,
    learned: ObjectiveParameters | None,
    shares_N: Tensor | None,
) -> Tensor:
    """The distance to a teacher's scores of each row's own candidates; rows without scores do not count."""
    negatives_NKD = vectors.negatives_NKD
    if scores_NC is None or negatives_NKD is None:  # no row of this batch has any, so the term's weight here is 0
        return vectors.queries_ND.new_zeros(())
    device = vectors.queries_ND.device
    teacher_NC = to_device(scores_NC, device).to(vectors.queries_ND)
    none_N = scores_NC.isnan().any(1)
    if none_N.any():
        shares_N = torch.ones_like(teacher_NC[:, 0]) if shares_N is None else shares_N
        shares_N = shares_N.masked_fill(to_device(none_N, device), 0.0)
        teacher_NC = teacher_NC.nan_to_num()

    def loss(queries_Nd: Tensor, positives_Nd: Tensor, negatives_NKd: Tensor) -> Tensor:
        student_NC = score_candidates(queries_Nd, positives_Nd, negatives_NKd)
        if isinstance(term, MarginMse):
            return margin_mse(student_NC, teacher_NC * term.teacher_scale, row_weights_N=shares_N)
        return score_distillation(
            student_NC,
            teacher_NC,
            temperature=_temperature(term.temperature, task, learned),
            teacher_temperature=term.teacher_temperature,
            scaled=False,  # so that it is of InfoNCE's size, which is not scaled either
            row_weights_N=shares_N,
        )

    parts = [vectors.queries_ND, vectors.positives_ND, negatives_NKD]
    if term.matryoshka is None:
        return loss(*parts)
    return matryoshka(loss, parts, term.matryoshka, term.matryoshka_weights)


def _temperature(own: float | None, task: schema.Contrast, learned: ObjectiveParameters | None) -> float | Tensor:
    if own is None and learned is not None:
        return learned.temperature()
    return task.temperature if own is None else own


def _matched(
    term: Matching,
    vectors: Vectors,
    teacher: Mapping[str, Tensor],
    projection_ED: Tensor | None,
    shares_N: Tensor | None,
) -> Tensor:
    """The distance to a teacher: summed over queries, positives and negatives; relational, among all of them.

    In Matryoshka's prefixes a direct match is with the teacher's own prefix, a relational one with the whole teacher.
    """
    device = vectors.queries_ND.device
    pairs = [(own, to_device(teacher[texts], device)) for texts in term.texts if (own := vectors.of(texts)) is not None]
    if term.form == "relational":
        student_ND, teacher_NE = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        lengths = term.matryoshka or (student_ND.shape[1],)
        return matryoshka(
            lambda own: relational_matching(own, teacher_NE), [student_ND], lengths, term.matryoshka_weights
        )

    def distance(own_ND: Tensor, its_NE: Tensor) -> Tensor:
        # A row's hard negatives weigh as the row does.
        weights = None if shares_N is None else shares_N.repeat_interleave(len(own_ND) // len(shares_N))
        return embedding_matching(own_ND, its_NE, projection_ED, distance=term.distance, row_weights_N=weights)

    if term.matryoshka is None:
        return torch.stack([distance(own, its.to(own)) for own, its in pairs]).sum()
    values = [matryoshka(distance, [o, t.to(o)], term.matryoshka, term.matryoshka_weights) for o, t in pairs]
    return torch.stack(values).sum()


def _value(
    term: Nce | Gor | SelfContrast,
    task: schema.Contrast,
    vectors: Vectors,
    keys: TextHashes,
    learned: ObjectiveParameters | None,
    shares_N: Tensor | None,
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
        temperature = _temperature(term.temperature, task, learned)
        if not isinstance(term, Nce):
            texts_N = keys.queries_N if term.texts == "queries" else keys.positives_N
            return self_contrast(
                first_Nd, second_Nd, temperature=temperature, text_hashes_N=texts_N, row_weights_N=shares_N
            )
        shared = task.share_hard_negatives if term.share_hard_negatives is None else term.share_hard_negatives
        return nce(
            first_Nd,
            second_Nd,
            negatives_NKd,
            temperature=temperature,
            share_hard_negatives=shared,
            hardness=term.hardness or 0.0,  # none is left open in a recipe
            query_query=term.query_query,
            passage_passage=term.passage_passage,
            symmetric=term.symmetric,
            false_negative_margin=term.false_negative_margin,
            text_hashes=keys,
            row_weights_N=shares_N,
        )

    if term.matryoshka is None:
        return loss(*parts)  # type: ignore[arg-type]
    return matryoshka(loss, parts, term.matryoshka, term.matryoshka_weights)
