"""Learning from a teacher: from its vectors (an embedding model) or from its scores (a reranker).

Shapes: N texts or rows, D dimensions of the student, E of the teacher, K hard negatives a row, C = 1 + K candidates,
R rows of a block.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from gemma4vec.errors import InputError
from gemma4vec.objective.log_partition import MAX_SCORES, row_blocks
from gemma4vec.objective.row_mean import row_mean

Distance = Literal["squared", "l2", "cosine"]


def embedding_matching(
    student_ND: Tensor,
    teacher_NE: Tensor,
    projection_ED: Tensor | None = None,
    *,
    distance: Distance = "squared",
    row_weights_N: Tensor | None = None,
) -> Tensor:
    """Mean distance of the student's vectors to the teacher's (EmbedDistill, arXiv:2301.12005).

    EmbeddingGemma (arXiv:2509.20354, section 2.2) sums it over queries, positives and hard negatives.

    Args:
        student_ND: the student's vectors.
        teacher_NE: the teacher's; no gradient goes there.
        projection_ED: a learned matrix from the student's dimensions to the teacher's, where these differ.
        distance: squared Euclidean, Euclidean, or 1 - cosine.
        row_weights_N: factor of each text's distance; None: 1 each.

    Raises:
        InputError: the dimensions differ and there is no projection, or the projection is of others.
    """
    teacher_NE = teacher_NE.detach().to(student_ND)
    check_teacher_dimension(student_ND.shape[-1], teacher_NE.shape[-1], projection_ED)
    projected_NE = student_ND if projection_ED is None else student_ND @ projection_ED.T
    if distance == "cosine":
        return row_mean(1 - functional.cosine_similarity(projected_NE, teacher_NE, dim=-1), row_weights_N)
    difference_NE = projected_NE - teacher_NE
    if distance == "l2":
        return row_mean(torch.linalg.vector_norm(difference_NE, dim=-1), row_weights_N)
    return row_mean(difference_NE.square().sum(-1), row_weights_N)


def check_teacher_dimension(student: int, teacher: int, projection_ED: Tensor | None) -> None:
    """Refuse a teacher whose vectors cannot be compared with the student's.

    Raises:
        InputError: the dimensions differ and there is no projection, or the projection is of others.
    """
    if projection_ED is None and student != teacher:
        raise InputError(
            f"the teacher has {teacher} dimensions, the model {student}; name a projection, or match relations instead"
        )
    if projection_ED is not None and projection_ED.shape != (teacher, student):
        rows, columns = projection_ED.shape
        raise InputError(f"the projection leads from {columns} to {rows} dimensions; {student} to {teacher} are needed")


def relational_matching(student_ND: Tensor, teacher_NE: Tensor, *, max_scores: int = MAX_SCORES) -> Tensor:
    """Mean squared difference of similarities between different texts, the student's and the teacher's.

    The Gram form, for teachers of any dimension (Park et al. 2019, arXiv:1904.05068; Tung and Mori 2019,
    arXiv:1907.09682). No more than `max_scores` similarities are in memory at once.
    """
    value: Tensor = _Relations.apply(student_ND, teacher_NE.detach().to(student_ND), max_scores)
    return value


class _Relations(torch.autograd.Function):
    """Takes the gradient while a block's differences are there: of a scalar, it is only scaled later."""

    @staticmethod
    def forward(ctx: Any, student_ND: Tensor, teacher_NE: Tensor, max_scores: int) -> Tensor:
        n = len(student_ND)
        pairs = max(1, n * (n - 1))
        total = student_ND.new_zeros(())
        gradient_ND = torch.empty_like(student_ND)
        for start, stop in row_blocks(n, n, max_scores):
            difference_RN = student_ND[start:stop] @ student_ND.T - teacher_NE[start:stop] @ teacher_NE.T
            difference_RN.diagonal(start).zero_()
            total += difference_RN.square().sum()
            gradient_ND[start:stop] = difference_RN @ student_ND  # every pair counts in both of its rows: 2 * 2
        ctx.save_for_backward(gradient_ND * (4.0 / pairs))
        return total / pairs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_ND,) = ctx.saved_tensors
        return gradient_ND * gradient, None, None


def score_candidates(queries_ND: Tensor, positives_ND: Tensor, negatives_NKD: Tensor) -> Tensor:
    """`[N, C]`: similarities of each query with its own positive, then with its own hard negatives."""
    candidates_NCD = torch.cat([positives_ND[:, None], negatives_NKD], dim=1)
    return torch.einsum("nd,ncd->nc", queries_ND, candidates_NCD)


def score_distillation(
    student_NC: Tensor,
    teacher_NC: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    teacher_temperature: float = 1.0,
    scaled: bool = True,
    row_weights_N: Tensor | None = None,
) -> Tensor:
    """KL divergence of the student's distribution over a row's candidates from the teacher's, mean over rows.

    Lin et al. 2020 (arXiv:2010.11386); `scaled`, times the squared temperature, so that it does not change the
    gradient's size where both have one temperature (Hinton et al. 2015, arXiv:1503.02531, section 2).

    Args:
        student_NC, teacher_NC: scores of the same candidates; no gradient goes into the teacher's.
        temperature, teacher_temperature: the scores are divided by them; a scalar with a gradient is learned.
        row_weights_N: factor of each row's divergence; None: 1 each.
    """
    _check_scores(student_NC, teacher_NC)
    shares_NC = functional.softmax(teacher_NC.detach().to(student_NC) / teacher_temperature, dim=1)
    logs_NC = functional.log_softmax(student_NC / temperature, dim=1)
    found = row_mean(functional.kl_div(logs_NC, shares_NC, reduction="none").sum(1), row_weights_N)
    return found * temperature**2 if scaled else found


def margin_mse(student_NC: Tensor, teacher_NC: Tensor, *, row_weights_N: Tensor | None = None) -> Tensor:
    """Mean squared difference of the margins between positive (column 0) and each hard negative.

    Hofstätter et al. 2020 (arXiv:2010.02666).
    """
    _check_scores(student_NC, teacher_NC)
    teacher_NC = teacher_NC.detach().to(student_NC)
    student_NK, teacher_NK = (scores[:, :1] - scores[:, 1:] for scores in (student_NC, teacher_NC))
    return row_mean((student_NK - teacher_NK).square().mean(1), row_weights_N)


def _check_scores(student_NC: Tensor, teacher_NC: Tensor) -> None:
    if student_NC.shape != teacher_NC.shape:
        raise InputError(f"the teacher scored {tuple(teacher_NC.shape)} candidates, the rows {tuple(student_NC.shape)}")
    if student_NC.shape[1] < 2:
        raise InputError("a teacher's scores say nothing without a hard negative; rows need one at least")
