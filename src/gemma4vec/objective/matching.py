"""Distillation from a teacher's vectors (an embedding model) or from its scores (a reranker).

Shapes: N texts or rows, D dimensions of the student, E of the teacher, K hard negatives a row, C = 1 + K candidates,
R rows of a block.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from gemma4vec.errors import InputError
from gemma4vec.objective.log_partition import MAX_SCORES, log_partition, row_blocks
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
    """Mean distance of the student's vectors to the teacher's.

    Papers: EmbedDistill (Kim et al. 2023, arXiv:2301.12005); EmbeddingGemma (arXiv:2509.20354, section 2.2) adds the
    distances of queries, positives and hard negatives.

    Inputs:
        | tensor | shape | content |
        |---|---|---|
        | `student_ND` | `[N, D]` float | unit vectors of the student |
        | `teacher_NE` | `[N, E]` float | vectors of the teacher for the same texts; no gradient |
        | `projection_ED` | `[E, D]` float, or None | learned matrix from the student's to the teacher's dimensions |
        | `row_weights_N` | `[N]` float, or None | weight of each text's distance |

    Args:
        student_ND, teacher_NE, projection_ED, row_weights_N: see the table.
        distance: squared Euclidean, Euclidean (`l2`), or 1 - cosine.

    Returns:
        A scalar.

    Raises:
        InputError: D differs from E without a projection, or the projection has another shape.

    Relations:
        Same as sentence-transformers' EmbedDistillLoss. For other dimensions without a projection take
        `relational_matching`; for a reranker `score_distillation` or `margin_mse`.

    Example:
        >>> import torch
        >>> embedding_matching(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        tensor(2.)
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
    """Check that a teacher's vectors can be compared with the student's.

    Raises:
        InputError: the dimensions differ without a projection, or the projection has another shape.
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
    """Computes the gradient in the forward pass, while a block's differences exist; backward only scales it."""

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
            gradient_ND[start:stop] = difference_RN @ student_ND  # each pair is in two rows, hence 2 * 2 below
        ctx.save_for_backward(gradient_ND * (4.0 / pairs))
        return total / pairs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_ND,) = ctx.saved_tensors
        return gradient_ND * gradient, None, None


def listwise_matching(
    queries_ND: Tensor,
    candidates_MD: Tensor,
    teacher_queries_NE: Tensor,
    teacher_candidates_ME: Tensor,
    *,
    temperature: float | Tensor = 0.05,
    teacher_temperature: float = 0.05,
    row_weights_N: Tensor | None = None,
    max_scores: int = MAX_SCORES,
) -> Tensor:
    """KL divergence of each query's distribution over the batch's candidates from the teacher's, mean over queries.

    The teacher ranks the whole batch as a list (ListNet's loss: Cao et al. 2007, ICML, section 4; over in-batch
    candidates: Lin et al. 2021, RepL4NLP, section 3.2), not a row's own candidates alone (`score_distillation`). So a
    candidate that answers two queries is no negative of either where the teacher knows it.

    Inputs:
        | tensor | shape | content |
        |---|---|---|
        | `queries_ND` | `[N, D]` float | unit vectors of the student's queries |
        | `candidates_MD` | `[M, D]` float | of its candidates, M at least 2 |
        | `teacher_queries_NE` | `[N, E]` float | the teacher's vectors of the same queries; no gradient |
        | `teacher_candidates_ME` | `[M, E]` float | and of the same candidates |
        | `row_weights_N` | `[N]` float, or None | weight of each query's divergence |

    Args:
        queries_ND, candidates_MD, teacher_queries_NE, teacher_candidates_ME, row_weights_N: see the table.
        temperature: the student's similarities are divided by it; a scalar tensor with a gradient is learned.
        teacher_temperature: the teacher's similarities are divided by it.
        max_scores: number of similarities in memory at once.

    Returns:
        A scalar; 0 where all distributions are equal.

    Raises:
        InputError: the teacher has vectors of other texts, or there are fewer than 2 candidates.

    Relations:
        `score_distillation` of the two matrices of similarities, without their squared temperature.

    Example:
        >>> import torch
        >>> one, two = torch.tensor([[1.0, 0.0]]), torch.eye(2)
        >>> round(listwise_matching(one, two, one, two.flip(0), temperature=1.0, teacher_temperature=1.0).item(), 4)
        0.4621
    """
    if len(queries_ND) != len(teacher_queries_NE) or len(candidates_MD) != len(teacher_candidates_ME):
        raise InputError(
            f"the teacher has {len(teacher_queries_NE)} queries and {len(teacher_candidates_ME)} candidates, the batch "
            f"{len(queries_ND)} and {len(candidates_MD)}"
        )
    if len(candidates_MD) < 2:
        raise InputError("a list of one candidate says nothing; a batch needs two candidates at least")
    inverse = 1.0 / torch.as_tensor(temperature, dtype=queries_ND.dtype, device=queries_ND.device)
    teacher_NE, teacher_ME = (one.detach().to(queries_ND) for one in (teacher_queries_NE, teacher_candidates_ME))
    found: tuple[Tensor, Tensor] = _Expected.apply(
        queries_ND, candidates_MD, teacher_NE, teacher_ME, teacher_temperature, max_scores
    )
    expected_N, entropy_N = found
    log_N = log_partition(queries_ND, candidates_MD, inverse, max_scores=max_scores)
    return row_mean(log_N - inverse * expected_N - entropy_N, row_weights_N)


class _Expected(torch.autograd.Function):
    """The student's similarity that the teacher's distribution expects, `[N]`, and that distribution's entropy."""

    @staticmethod
    def forward(
        ctx: Any,
        queries_ND: Tensor,
        candidates_MD: Tensor,
        teacher_NE: Tensor,
        teacher_ME: Tensor,
        teacher_temperature: float,
        max_scores: int,
    ) -> tuple[Tensor, Tensor]:
        expected_ND, entropy_N = torch.empty_like(queries_ND), queries_ND.new_empty(len(queries_ND))
        ctx.blocks = list(row_blocks(len(queries_ND), len(candidates_MD), max_scores))
        ctx.teacher_temperature = teacher_temperature
        for start, stop in ctx.blocks:
            logs_RM = _teacher_logs(teacher_NE[start:stop], teacher_ME, teacher_temperature)
            shares_RM = logs_RM.exp()
            expected_ND[start:stop] = shares_RM @ candidates_MD
            entropy_N[start:stop] = -(shares_RM * logs_RM).sum(1)
        ctx.save_for_backward(queries_ND, expected_ND, teacher_NE, teacher_ME)
        ctx.mark_non_differentiable(entropy_N)
        return (expected_ND * queries_ND).sum(1), entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_N: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        queries_ND, expected_ND, teacher_NE, teacher_ME = ctx.saved_tensors
        weighted_ND = queries_ND * gradient_N[:, None]
        to_candidates_MD = queries_ND.new_zeros(len(teacher_ME), queries_ND.shape[1])
        for start, stop in ctx.blocks:  # shares are computed again rather than kept
            shares_RM = _teacher_logs(teacher_NE[start:stop], teacher_ME, ctx.teacher_temperature).exp_()
            to_candidates_MD.addmm_(shares_RM.T, weighted_ND[start:stop])
        return expected_ND * gradient_N[:, None], to_candidates_MD, None, None, None, None


def _teacher_logs(teacher_RE: Tensor, teacher_ME: Tensor, temperature: float) -> Tensor:
    return functional.log_softmax((teacher_RE @ teacher_ME.T) / temperature, dim=1)


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

    Paper: Lin et al. 2020 (arXiv:2010.11386). `scaled` multiplies by the squared temperature, so that the gradient's
    size does not depend on a temperature shared by both (Hinton et al. 2015, arXiv:1503.02531, section 2).

    Inputs:
        | tensor | shape | content |
        |---|---|---|
        | `student_NC` | `[N, C]` float | the student's scores, such as `score_candidates` |
        | `teacher_NC` | `[N, C]` float | the teacher's scores of the same candidates; no gradient |
        | `row_weights_N` | `[N]` float, or None | weight of each row's divergence |

    Args:
        student_NC, teacher_NC, row_weights_N: see the table.
        temperature: the student's scores are divided by it; a scalar tensor with a gradient is learned.
        teacher_temperature: the teacher's scores are divided by it.
        scaled: multiply by `temperature ** 2`.

    Returns:
        A scalar; 0 where both distributions are equal.

    Raises:
        InputError: the shapes differ, or a row has fewer than 2 candidates.

    Relations:
        Same as sentence-transformers' DistillKLDivLoss. `margin_mse` matches the scale of the teacher's scores too.

    Example:
        >>> import torch
        >>> round(score_distillation(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 1.0]])).item(), 4)
        0.1109
    """
    _check_scores(student_NC, teacher_NC)
    shares_NC = functional.softmax(teacher_NC.detach().to(student_NC) / teacher_temperature, dim=1)
    logs_NC = functional.log_softmax(student_NC / temperature, dim=1)
    found = row_mean(functional.kl_div(logs_NC, shares_NC, reduction="none").sum(1), row_weights_N)
    return found * temperature**2 if scaled else found


def margin_mse(student_NC: Tensor, teacher_NC: Tensor, *, row_weights_N: Tensor | None = None) -> Tensor:
    """Mean squared difference of the margins between the positive and each hard negative.

    Paper: Hofstätter et al. 2020 (arXiv:2010.02666): `((s_0 - s_k) - (t_0 - t_k))^2`, mean over k and rows.

    Inputs:
        | tensor | shape | content |
        |---|---|---|
        | `student_NC` | `[N, C]` float | the student's scores; column 0 is the positive |
        | `teacher_NC` | `[N, C]` float | the teacher's scores of the same candidates; no gradient |
        | `row_weights_N` | `[N]` float, or None | weight of each row |

    Returns:
        A scalar.

    Raises:
        InputError: the shapes differ, or a row has fewer than 2 candidates.

    Requirements:
        Cosine similarities differ by 2 at most; scale a reranker's logits to that range first.

    Relations:
        Same as sentence-transformers' MarginMSELoss. `score_distillation` ignores the scores' scale.

    Example:
        >>> import torch
        >>> margin_mse(torch.tensor([[1.0, 0.5]]), torch.tensor([[1.0, 0.0]])).item()
        0.25
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
