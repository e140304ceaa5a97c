"""The suggestions of a method for every query of a suite: kept texts with their vectors and rankings.

Shapes: Q queries, S suggestions, K places, d dimensions.
"""

from dataclasses import dataclass

import numpy as np

from gemma4vec.fanout.keep import choose
from gemma4vec.fanout.methods import Method
from gemma4vec.fanout.setting import Ints, Setting
from gemma4vec.fanout.walk import Vectors


@dataclass(frozen=True)
class Suggestions:
    """Of one query.

    Attributes:
        texts: kept texts; empty where a method ranks without texts.
        vectors_Sd: their unit vectors.
        rankings: a ranking for each suggestion.
        written: number of texts before the gates.
    """

    texts: list[str]
    vectors_Sd: Vectors
    rankings: list[Ints]
    written: int


def suggest(setting: Setting, method: Method) -> list[Suggestions]:
    """The suggestions of a method, at most `choices.n` a query; no judgment is seen where texts are chosen."""
    if method.rankings is not None:
        none = np.zeros((0, setting.queries_Qd.shape[1]), dtype=np.float32)
        return [Suggestions([], none, one[: setting.choices.n], len(one)) for one in method.rankings(setting)]
    assert method.texts is not None
    return keep_texts(setting, method.texts(setting), range(len(setting.suite.queries)))


def keep_texts(setting: Setting, texts: list[list[str]], rows: range) -> list[Suggestions]:
    """The texts of each query that pass the gates, with their vectors and rankings."""
    width = setting.queries_Qd.shape[1]
    different = list(dict.fromkeys(text for several in texts for text in several if text.strip()))
    vectors = setting.embedder.encode_query(different) if different else np.zeros((0, width), np.float32)
    vector_of = dict(zip(different, vectors, strict=True))
    found = []
    for row, several in zip(rows, texts, strict=True):
        usable = [text for text in several if text in vector_of]
        vectors_Nd = np.stack([vector_of[text] for text in usable]) if usable else np.zeros((0, width), np.float32)
        query, query_d = setting.suite.queries[row], setting.queries_Qd[row]
        kept = choose(usable, vectors_Nd, query, query_d, setting.choices.n, setting.choices.gates)
        vectors_Sd = vectors_Nd[kept] if kept else np.zeros((0, width), np.float32)
        rankings = list(setting.rank(vectors_Sd, [row] * len(kept))) if kept else []
        found.append(Suggestions([usable[place] for place in kept], vectors_Sd, rankings, len(several)))
    return found
