"""Texts from a model of the next token: greedy, nucleus sampling, beam search. Pure functions of scores.

Shapes: R rows, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Tokens in which a nucleus is looked for first; sorting a vocabulary of 262,144 takes ten times as long.
_SHORT_LIST = 1024


class NextToken(Protocol):
    """Scores of the next token of rows that grow together."""

    def start(self) -> Tensor:
        """Logits `[R, V]` of the first token of each row; minus infinity for tokens that must not come."""

    def step(self, tokens_R: Tensor) -> Tensor:
        """Add a token to each row; the logits `[R, V]` of the next."""

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be taken several times."""


@dataclass(frozen=True)
class Written:
    """A generated text: its tokens without the one that ends it, and the log-probability of all of them.

    Attributes:
        ids: token ids.
        log_probability: natural logarithm, by the model as it is (no temperature), the end included.
        ended: whether the model ended it; if not, it was cut at the limit.
    """

    ids: tuple[int, ...]
    log_probability: float
    ended: bool


def write_greedily(model: NextToken, rows: int, *, end_id: int, limit: int) -> list[Written]:
    """The likeliest token at each step, the lowest id of several; at most `limit` tokens."""
    return _write(model, rows, end_id, limit, lambda logits_RV, _, __: logits_RV.argmax(dim=1))


def write_by_nucleus(
    model: NextToken, draws_RL: NDArray[np.float64], *, end_id: int, temperature: float = 0.7, top_p: float = 0.95
) -> list[Written]:
    """Sample from the likeliest tokens that together have `top_p` (Holtzman et al. 2020, arXiv:1904.09751).

    Args:
        model: the model of the next token.
        draws_RL: uniform numbers in [0, 1) for L steps of each row, so that a row does not depend on its neighbors.
        end_id: ends a text.
        temperature: logits are divided by it first.
        top_p: probability of the nucleus.
    """

    def choose(logits_RV: Tensor, rows: NDArray[np.int64], step: int) -> Tensor:
        return draw_from_nucleus(logits_RV / temperature, torch.from_numpy(draws_RL[rows, step]), top_p)

    return _write(model, len(draws_RL), end_id, draws_RL.shape[1], choose)


def draw_from_nucleus(logits_RV: Tensor, draws_R: Tensor, top_p: float) -> Tensor:
    """Of each row the token at which the summed probability of the nucleus, likeliest first, passes the draw."""
    logits_RV = logits_RV.double()
    total_R = logits_RV.logsumexp(dim=1, keepdim=True)
    short = min(_SHORT_LIST, logits_RV.shape[1])
    values_RK, tokens_RK = logits_RV.topk(short, dim=1)
    probabilities_RK = (values_RK - total_R).exp()
    if short < logits_RV.shape[1] and float(probabilities_RK.sum(dim=1).min()) < top_p:
        values_RK, tokens_RK = logits_RV.sort(dim=1, descending=True)
        probabilities_RK = (values_RK - total_R).exp()
    before_RK = probabilities_RK.cumsum(dim=1) - probabilities_RK
    kept_RK = probabilities_RK * (before_RK < top_p)  # the likeliest always stays
    sums_RK = kept_RK.cumsum(dim=1)
    wanted_R1 = draws_R.to(sums_RK)[:, None] * sums_RK[:, -1:]
    places_R1 = (sums_RK <= wanted_R1).sum(dim=1, keepdim=True)
    last_R1 = (kept_RK > 0).sum(dim=1, keepdim=True) - 1
    return tokens_RK.gather(1, torch.minimum(places_R1, last_R1)).squeeze(1)


def _write(model: NextToken, rows: int, end_id: int, limit: int, choose: "_Choice") -> list[Written]:
    """Let all rows grow until each has ended; ended rows are computed no further."""
    ids: list[list[int]] = [[] for _ in range(rows)]
    sums, ended = np.zeros(rows), np.zeros(rows, dtype=bool)
    live = np.arange(rows)
    logits_RV = model.start()
    for step in range(limit):
        tokens_R = choose(logits_RV, live, step)
        chosen_R = logits_RV.double().log_softmax(dim=1).gather(1, tokens_R[:, None]).squeeze(1)
        sums[live] += chosen_R.cpu().numpy()
        tokens = tokens_R.cpu().numpy()
        ended[live[tokens == end_id]] = True
        staying = np.flatnonzero(tokens != end_id)
        for place in staying.tolist():
            ids[live[place]].append(int(tokens[place]))
        if not len(staying) or step + 1 == limit:
            break
        if len(staying) < len(live):
            live = live[staying]
            model.select(torch.from_numpy(staying))
            tokens_R = tokens_R[torch.from_numpy(staying).to(tokens_R.device)]
        logits_RV = model.step(tokens_R)
    return [Written(tuple(own), float(total), bool(end)) for own, total, end in zip(ids, sums, ended, strict=True)]


class _Choice(Protocol):
    def __call__(self, logits_RV: Tensor, rows: NDArray[np.int64], step: int, /) -> Tensor: ...


@dataclass(frozen=True)
class _Beam:
    ids: tuple[int, ...]
    score: float


def write_by_beams(model: NextToken, texts: int, width: int, *, end_id: int, limit: int) -> list[list[Written]]:
    """Beam search: of each text the `width` best that are found, best first, by the sum of log-probabilities.

    Args:
        model: the model of the next token; `start` has one row for each text.
        texts: number of texts.
        width: beams of each text; with as many beams as there are texts of `limit` tokens, it finds the best of all.
        end_id: ends a text.
        limit: tokens of a text at most.
    """
    done: list[list[Written]] = [[] for _ in range(texts)]
    live: dict[int, list[_Beam]] = {text: [_Beam((), 0.0)] for text in range(texts)}
    logits_RV = model.start()
    for step in range(limit):
        scores_RV = logits_RV.double().log_softmax(dim=1)
        rows: list[int] = []
        tokens: list[int] = []
        grown: dict[int, list[_Beam]] = {}
        first = 0
        for text, beams in live.items():
            own_BV = scores_RV[first : first + len(beams)] + torch.tensor(
                [[beam.score] for beam in beams], dtype=torch.float64, device=scores_RV.device
            )
            survivors: list[_Beam] = []
            for score, row, token in _best(own_BV, width):
                if token == end_id:
                    done[text].append(Written(beams[row].ids, score, True))
                elif len(survivors) < width:
                    survivors.append(_Beam((*beams[row].ids, token), score))
                    rows.append(first + row)
                    tokens.append(token)
            first += len(beams)
            done[text] = sorted(done[text], key=lambda one: -one.log_probability)[:width]
            full = len(done[text]) == width
            if survivors and full and survivors[0].score <= done[text][-1].log_probability:
                del rows[-len(survivors) :], tokens[-len(survivors) :]  # scores only fall: none gets among the best
            elif survivors:
                grown[text] = survivors
        live = grown
        if not live or step + 1 == limit:
            break
        model.select(torch.tensor(rows))
        logits_RV = model.step(torch.tensor(tokens, device=logits_RV.device))
    for text, beams in live.items():
        done[text] += [Written(beam.ids, beam.score, False) for beam in beams]
    return [sorted(found, key=lambda one: -one.log_probability)[:width] for found in done]


def _best(scores_BV: Tensor, width: int) -> Sequence[tuple[float, int, int]]:
    """(score, row, token) of the 2 * width best: at most one of a row ends its text."""
    flat = scores_BV.flatten()
    values, places = flat.topk(min(2 * width, len(flat)))
    vocabulary = scores_BV.shape[1]
    return [
        (score, place // vocabulary, place % vocabulary)
        for score, place in zip(values.tolist(), places.tolist(), strict=True)
        if score > -float("inf")
    ]
