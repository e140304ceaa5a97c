"""The likely cause of a difference: the model with one thing wrong whose vectors are the export's.

Shapes: N texts, W width of the export's vectors.
"""

from collections.abc import Sequence

import numpy as np

from gemma4vec.export.parity.reference import Reference, variants
from gemma4vec.export.runtimes.job import RoleText, Vectors

_TEXTS = 24
# A variant explains the difference if it is this close, and leaves at most this part of it.
_CLOSE, _LEFT = 0.98, 0.25


def likely_cause(
    reference: Reference,
    texts: Sequence[RoleText],
    theirs_NW: Vectors,
    ours_ND: Vectors,
    tokens: Sequence[list[int] | None],
    dtype: str,
) -> str:
    """The cause in one clause; empty if none is found.

    Args:
        reference: the model.
        texts: compared texts that the export did not refuse.
        theirs_NW: the export's vectors.
        ours_ND: the model's.
        tokens: the export's token ids, if known.
        dtype: number type of the export.
    """
    width = theirs_NW.shape[1]
    finite = [i for i in range(len(texts)) if np.isfinite(theirs_NW[i]).all() and texts[i].text.strip()]
    if not finite:
        return "the computation overflows, as Gemma does in 16 bits; serve it in fp32 or bf16"
    plain_N = _agreement(ours_ND[finite], theirs_NW[finite])
    order = np.argsort(plain_N, kind="stable")
    half = _TEXTS // 2
    chosen = list(dict.fromkeys([*order[:half], *order[:: max(1, len(order) // half)]]))
    some = [finite[i] for i in chosen]
    given = [texts[i] for i in some]
    plain = float(plain_N[chosen].mean())
    best, cause = -1.0, ""
    for variant in variants(reference):
        vectors_ND = variant.vectors(given)
        if vectors_ND.shape[1] > width:
            continue
        close = float(_agreement(vectors_ND, theirs_NW[some]).mean())
        if close > best:
            best, cause = close, variant.cause
    if best >= _CLOSE and 1 - best <= _LEFT * (1 - plain):
        return f"{cause} (cosine {best:.4f} to the model changed in this way)"
    if any(mine != theirs for mine, theirs in _known(reference, texts, tokens)):
        return "its tokenizer differs from the model's"
    if dtype.startswith("q"):
        return f"{dtype} loses too much; train for it, or use --dtype {'q8_0 or f16' if dtype == 'q4_0' else 'f16'}"
    return ""


def _agreement(ours_ND: Vectors, theirs_NW: Vectors) -> Vectors:
    """Cosine of each pair of rows, `[N]`; the shorter vectors are followed by zeros."""
    kept = min(ours_ND.shape[1], theirs_NW.shape[1])
    products_N = (ours_ND[:, :kept] * theirs_NW[:, :kept]).sum(1)
    lengths_N = np.linalg.norm(ours_ND, axis=1) * np.linalg.norm(theirs_NW, axis=1)
    return np.asarray(products_N / np.where(lengths_N > 0, lengths_N, np.inf))


def _known(
    reference: Reference, texts: Sequence[RoleText], tokens: Sequence[list[int] | None]
) -> list[tuple[list[int], list[int]]]:
    ours = reference.read(texts)
    return [(list(mine.ids), said) for mine, said in zip(ours, tokens, strict=True) if said is not None]
