"""The loss of a contrast: the weighted sum of its terms.

Shapes: N rows, K hard negatives a row, C = 1 + K candidates, D dimensions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gemma4vec.data.batching.batches import RowBatch
from gemma4vec.machine.device import to_device
from gemma4vec.model.backbone.lm_head import LanguageModelHead
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.objective.false_negatives import TextHashes
from gemma4vec.objective.gather import gather_rows
from gemma4vec.objective.left_out import left_out_share
from gemma4vec.recipe import schema
from gemma4vec.recipe.terms import AnyTerm, Nce
from gemma4vec.training.engine.checkpoint import OBJECTIVE_PREFIX
from gemma4vec.training.engine.task import ExtraParameter
from gemma4vec.training.terms import TERMS
from gemma4vec.training.terms.base import LayOut, LossTerm, TermBatch, TermContext, Vectors
from gemma4vec.training.terms.temperature import Temperature


@dataclass(frozen=True)
class RowContext:
    """What the data says about the rows of a batch.

    Attributes:
        sources: name of each row's source; empty: not known.
        scores_NC: a teacher's scores of each row's candidates, NaN in rows without scores; None: no row has any.
    """

    sources: Sequence[str] = ()
    scores_NC: Tensor | None = None

    @staticmethod
    def of(sources: Sequence[str], scores: Sequence[Sequence[float] | None], hard_negatives: int) -> "RowContext":
        """From the rows' lists of scores."""
        if not any(row is not None for row in scores):
            return RowContext(sources)
        none = [float("nan")] * (1 + hard_negatives)
        return RowContext(sources, torch.tensor([none if row is None else list(row) for row in scores]))

    def weights(self, term: AnyTerm) -> tuple[float, Tensor | None]:
        """A term's mean weight over the rows, and each row's factor, `[N]` of mean 1; None: all are 1."""
        weights = [term.weight_in(source) for source in self.sources] or [term.weight_in(None)]
        if len(set(weights)) == 1:
            return weights[0], None
        mean = sum(weights) / len(weights)
        return mean, torch.tensor(weights) / mean


# Label of a term with a teacher -> the teacher's vectors of `queries`, `positives`, `negatives`.
TeacherVectors = Mapping[str, Mapping[str, Tensor]]


class ContrastLoss:
    """The terms of a contrast, with what they train next to the model.

    Args:
        task: the recipe's.
        dimension: D.
        teacher_dimensions: dimension of each teacher, by the label of its term.
        device: where trained parameters are stored.
        built: the model itself, for terms that read with it.
        head: loads the base's language-model head, for a term that needs it.
    """

    def __init__(
        self,
        task: schema.Contrast,
        dimension: int,
        teacher_dimensions: Mapping[str, int] | None = None,
        device: torch.device | None = None,
        built: EmbeddingModel | None = None,
        head: Callable[[], LanguageModelHead] | None = None,
    ):
        device, sizes = device or torch.device("cpu"), teacher_dimensions or {}
        self.task = task
        self.temperature = Temperature(task, device)
        self.terms: dict[str, LossTerm] = {}
        for term in task.terms:
            context = TermContext(task, dimension, device, self.temperature, sizes.get(term.label), built, head)
            self.terms[term.label] = TERMS[term.kind](term, context)

    def extra_parameters(self) -> dict[str, ExtraParameter]:
        """A learned temperature, and what the terms train, by their names in checkpoints."""
        found = (
            {} if self.temperature.parameter is None else {f"{OBJECTIVE_PREFIX}temperature": self.temperature.parameter}
        )
        for label, term in self.terms.items():
            found |= {
                f"{OBJECTIVE_PREFIX}{label}.{name}": parameter for name, parameter in term.extra_parameters().items()
            }
        return found

    def prepare(self, rows: RowBatch, lay_out: LayOut) -> dict[str, Any]:
        """What terms need of the rows' texts, by label; see `LossTerm.prepare`."""
        made = {label: term.prepare(rows, lay_out) for label, term in self.terms.items()}
        return {label: value for label, value in made.items() if value is not None}

    def values(
        self,
        vectors: Vectors,
        hashes: TextHashes,
        teachers: TeacherVectors | None = None,
        rows: RowContext = RowContext(),
        prepared: Mapping[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        """Each term's value by label, before its weight, with a graph.

        Where rows of several sources have different weights in a term, its value is the weighted mean over them.
        """
        values = {}
        for term in self.task.terms:
            row_weights_N = rows.weights(term)[1]
            if row_weights_N is not None:
                row_weights_N = to_device(row_weights_N, vectors.queries_ND.device)
            batch = TermBatch(
                vectors,
                hashes,
                row_weights_N,
                rows.scores_NC,
                (teachers or {}).get(term.label, {}),
                (prepared or {}).get(term.label),
            )
            values[term.label] = self.terms[term.label].value(batch)
        return values

    def left_out(self, vectors: Vectors, hashes: TextHashes) -> Tensor | None:
        """The share of candidates that the first nce leaves out as possible answers; None where there is no nce."""
        for term in self.task.terms:
            if not isinstance(term, Nce):
                continue
            return left_out_share(
                vectors.queries_ND,
                vectors.positives_ND,
                vectors.negatives_NKD,
                text_hashes=hashes,
                false_negative_margin=term.false_negative_margin,
                share_hard_negatives=term.shares(self.task.share_hard_negatives),
            )
        return None

    def weighted_sum(self, values: Mapping[str, Tensor], rows: RowContext = RowContext()) -> Tensor:
        """The loss: each term times its mean weight over the rows.

        A term of weight 0 has no gradient, even where its value is not finite.
        """
        weights = {term.label: rows.weights(term)[0] for term in self.task.terms}
        return torch.stack([weight * values[label] for label, weight in weights.items() if weight]).sum()


def gather_vectors(own: Vectors, counts: Sequence[int]) -> Vectors:
    """The vectors of all processes, which have `counts` rows each, in a single exchange."""
    k = 0 if own.negatives_NKD is None else own.negatives_NKD.shape[1]
    parts = [own.queries_ND[:, None], own.positives_ND[:, None], *(view_ND[:, None] for view_ND in own.views.values())]
    parts += [] if own.negatives_NKD is None else [own.negatives_NKD]
    rows_NVD = gather_rows(torch.cat(parts, dim=1), counts)
    queries, positives, *views, negatives_NKD = rows_NVD.split([1] * (2 + len(own.views)) + [k], dim=1)
    names = dict(zip(own.views, (view_N1D[:, 0] for view_N1D in views), strict=True))
    return Vectors(queries[:, 0], positives[:, 0], negatives_NKD if k else None, names)
