"""The share of candidates that a contrast leaves out, against a loop over pairs."""

import pytest
import torch
from torch.nn import functional

from gemma4vec.objective.false_negatives import TextHashes
from gemma4vec.objective.left_out import left_out_share
from gemma4vec.objective.nce import false_negative_mask, nce

N, K, D = 7, 2, 5


def unit(*shape: int) -> torch.Tensor:
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape))), dim=-1)


HASHES = TextHashes(
    torch.tensor([1, 1, 3, 4, 5, 6, 7]),
    torch.tensor([11, 12, 13, 13, 15, 16, 5]),
    torch.tensor([[21, 12], [22, 23], [24, 25], [26, 27], [28, 29], [30, 31], [32, 13]]),
)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("margin", [None, 0.0, 0.2])
@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize("k", [0, K])
@pytest.mark.parametrize("max_scores", [1, 10**6])
def test_it_is_what_a_loop_counts(share: bool, margin: float | None, hashed: bool, k: int, max_scores: int) -> None:
    queries, positives, negatives = unit(N, D), unit(N, D).flip(0), unit(N, K, D)[:, :k]
    hashes = TextHashes(HASHES.queries_N, HASHES.positives_N, HASHES.negatives_NK[:, :k])
    mask = false_negative_mask(hashes.queries_N, hashes.positives_N, hashes.negatives_NK)
    left_out = counted = 0
    for row in range(N):
        own = float(queries[row] @ positives[row])
        candidates = [(n, positives[n], n != row) for n in range(N)]
        candidates += [(N + n * k + j, negatives[n, j], share or n == row) for n in range(N) for j in range(k)]
        for place, vector, shown in candidates:
            if not shown:
                continue
            counted += 1
            too_near = margin is not None and float(queries[row] @ vector) > own + margin
            left_out += bool(too_near or (hashed and mask[row, place]))
    found = left_out_share(
        queries,
        positives,
        negatives if k else None,
        text_hashes=hashes if hashed else None,
        false_negative_margin=margin,
        share_hard_negatives=share,
        max_scores=max_scores,
    )
    assert float(found) == pytest.approx(left_out / counted)
    assert (left_out > 0) == (hashed or margin is not None)


def test_a_batch_whose_candidates_are_all_left_out_has_no_loss() -> None:
    queries = torch.eye(3)
    positives = torch.eye(3).roll(1, 0)
    assert float(left_out_share(queries, positives, false_negative_margin=-1.0)) == 1.0
    assert float(nce(queries, positives, temperature=0.1, hardness=0.0, false_negative_margin=-1.0)) == 0.0
    assert float(left_out_share(queries[:1], positives[:1])) == 0.0  # there is no candidate
