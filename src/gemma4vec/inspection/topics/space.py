"""Topics as a frozen space: words, axes and centers that no trained model moves, on disk under a hash of them.

The space is TF-IDF of the suite's documents, reduced by SVD; the centers are those of k-means over the queries of the
open half. A text belongs to the nearest center. So `topic is 2-ship-harbor-sail@1a2b3c4d5e6f` is a rule: it
applies to sealed queries, to queries that nobody has seen, and to rows of training data.

`HOME/topics/<suite>-<seed>-<hash>.npz` is made once and then read, whatever the code does later.

Legend: N queries, M documents, V words, S dimensions, k topics.
"""

import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.cluster.vq import kmeans2
from scipy.sparse import csr_matrix

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.errors import InputError
from gemma4vec.files import NPY_ERRORS, atomic_write, home, sha256_text
from gemma4vec.inspection.attributes import WORD, Value, whole_text
from gemma4vec.inspection.predicates import TOPIC, Predicate
from gemma4vec.retrieval.tokenize import WordTokenizer, named_tokenizer, tokenizer_name

DOCUMENTS = 20_000  # that the space is made from
VOCABULARY = 20_000  # words, those of most documents
DIMENSIONS = 50
STARTS = 10  # of k-means
OVERSAMPLED, POWERS = 10, 4  # of the random projection
FEWEST, MOST = 4, 15  # topics
QUERIES_EACH = 15  # of the open half
WORDS, LONGEST = 3, 20  # words of a name, characters of a word
HASH = 12  # characters
Floats = npt.NDArray[np.float64]
Float32s = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TopicSpace:
    """A frozen space with its topics.

    Attributes:
        tokenizer: name of the tokenizer (`retrieval.tokenize.tokenizer_name`).
        words: str[V]; `idf` float32[V]; `axes` float32[V, S].
        centers: float32[k, S].
        names: of the topics, such as "2-ship-harbor-sail".
    """

    tokenizer: str
    words: Sequence[str]
    idf: Float32s
    axes: Float32s
    centers: Float32s
    names: tuple[str, ...]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that decides where a text belongs."""
        arrays = [one.tobytes().hex() for one in (self.idf, self.axes, self.centers)]
        return sha256_text(self.tokenizer, "\0".join(self.words), *arrays, "\0".join(self.names))[:HASH]

    @cached_property
    def place(self) -> dict[str, int]:
        """Word -> its row of the axes."""
        return {word: row for row, word in enumerate(self.words)}

    def vectors(self, texts: Sequence[str]) -> Floats:
        """Texts in the space, rows of unit length; zeros for a text without a word that it knows, float64[N, S]."""
        tokenize = named_tokenizer(self.tokenizer)
        rows_NV = tf_idf([tokenize(text) for text in texts], self.place, self.idf.astype(np.float64))
        return unit_or_zero(np.asarray(rows_NV @ self.axes.astype(np.float64)))

    def labels(self, texts: Sequence[str]) -> Ints:
        """The nearest center of each text, int64[N]; -1 for a text without a word that it knows."""
        return nearest(self.vectors(texts), self.centers)

    def topics(self, texts: Sequence[str]) -> list[str | None]:
        """The topic of each text, as rules name it."""
        return [None if label < 0 else self.rule_value(label) for label in self.labels(texts).tolist()]

    def rule_value(self, label: int) -> str:
        """A topic in a rule: its name and the space."""
        return f"{self.names[label]}@{self.fingerprint}"


def find_topics(suite: RetrievalSuite, open_N: npt.NDArray[np.bool_], seed: int = 0) -> TopicSpace | str:
    """The suite's frozen space: as it was made before, or made now and kept.

    Args:
        open_N: queries of the open half, bool[N]: the others are unseen.

    Returns:
        Words where there are too few queries, or where they share too few words with the documents.
    """
    stem = f"{suite.fingerprint[:HASH]}-{seed}-"
    for file in sorted(_folder().glob(f"{stem}*.npz")):
        known = _read(file)
        if known is not None:
            return known
    made = make_space(suite, open_N, seed)
    if isinstance(made, TopicSpace):
        _write(_folder() / f"{stem}{made.fingerprint}.npz", made)
    return made


def make_space(suite: RetrievalSuite, open_N: npt.NDArray[np.bool_], seed: int = 0) -> TopicSpace | str:
    """Compute the space; words where there is none."""
    rows = np.flatnonzero(open_N).tolist()
    k = min(len(rows) // QUERIES_EACH, MOST)
    if k < FEWEST:
        return f"{len(suite.queries)} queries are too few for topics"
    name = tokenizer_name([whole_text(one) for one in suite.corpus], code=suite.code)
    tokenize, queries = named_tokenizer(name), [suite.queries[row] for row in rows]
    words, idf_V, axes_VS = reference_space(suite, tokenize, seed)
    bare = TopicSpace(name, words, idf_V, axes_VS, np.zeros((0, axes_VS.shape[1]), np.float32), ())
    vectors_NS = bare.vectors(queries)
    known_NS = vectors_NS[vectors_NS.any(axis=1)]
    if len(np.unique(known_NS, axis=0)) < k:
        return "the queries share too few words with the documents"
    centers_kS = find_centers(known_NS, k, seed)
    labels_N = nearest(vectors_NS, centers_kS)
    counted = Counter(label for label in labels_N.tolist() if label >= 0)
    order = [label for label, _ in sorted(counted.items(), key=lambda one: (-one[1], one[0]))]  # empty ones are gone
    renumbered = {label: number for number, label in enumerate(order)}
    labels_N = np.array([renumbered.get(label, -1) for label in labels_N.tolist()])
    names = name_topics(queries, labels_N, tokenize)
    short = ["-".join(word[:LONGEST] for word in words[:WORDS]) for words in names]
    titles = tuple(f"{number}-{one}" if one else str(number) for number, one in enumerate(short))
    return TopicSpace(name, words, idf_V, axes_VS, np.asarray(centers_kS[order], dtype=np.float32), titles)


def find_centers(vectors_NS: Floats, k: int, seed: int) -> Floats:
    """Centers by k-means, float64[k, S]: of several starts the one with the smallest squared distances."""
    found: list[tuple[float, int, Floats]] = []
    for start in range(STARTS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an empty cluster is left out by who names them
            centers_kS, _ = kmeans2(vectors_NS, k, minit="++", seed=np.random.default_rng([seed, start]), iter=50)
        squared_N = ((vectors_NS - centers_kS[nearest(vectors_NS, centers_kS)]) ** 2).sum(axis=1)
        found.append((float(squared_N.sum()), start, centers_kS))
    return min(found, key=lambda one: one[:2])[2]


def reference_space(suite: RetrievalSuite, tokenize: WordTokenizer, seed: int) -> tuple[list[str], Float32s, Float32s]:
    """Words, their IDF [V] and the axes [V, S], from a sample of the documents alone."""
    generator = np.random.default_rng(seed)
    drawn = np.sort(generator.permutation(len(suite.corpus))[:DOCUMENTS])
    documents = [tokenize(whole_text(suite.corpus[at])) for at in drawn.tolist()]
    counted = Counter(token for tokens in documents for token in set(tokens))
    repeated = sorted((token for token, count in counted.items() if count > 1), key=lambda one: (-counted[one], one))
    words = sorted(repeated[:VOCABULARY])
    if len(words) < 3:
        return words, np.zeros(len(words), np.float32), np.zeros((len(words), 1), np.float32)
    idf_V = np.log(len(documents) / np.array([counted[token] for token in words])).astype(np.float32)
    place = {token: at for at, token in enumerate(words)}
    documents_MV = tf_idf(documents, place, idf_V.astype(np.float64))
    return words, idf_V, np.ascontiguousarray(main_axes(documents_MV, DIMENSIONS, generator).T, dtype=np.float32)


def main_axes(rows_MV: csr_matrix, dimensions: int, generator: np.random.Generator) -> Floats:
    """The first right singular vectors, float64[S, V], by a random projection (Halko et al. 2011, algorithm 4.4).

    Fewer than `dimensions` where the rows span fewer.
    """
    width = min(dimensions + OVERSAMPLED, *rows_MV.shape)
    found = rows_MV @ generator.normal(size=(rows_MV.shape[1], width))
    for _ in range(POWERS):
        basis, _ = np.linalg.qr(found)
        found = rows_MV @ (rows_MV.T @ basis)
    basis, _ = np.linalg.qr(found)
    _, values_S, axes_SV = np.linalg.svd(np.asarray((rows_MV.T @ basis).T), full_matrices=False)
    kept: Floats = axes_SV[: min(dimensions, int((values_S > 1e-9 * values_S[0]).sum()))]
    return kept


def tf_idf(texts: Sequence[Sequence[str]], place: Mapping[str, int], idf_V: Floats) -> csr_matrix:
    """Rows of (1 + log tf) * idf at unit length."""
    rows, columns, values = [], [], []
    for row, tokens in enumerate(texts):
        counted = Counter(place[token] for token in tokens if token in place)
        weights = {at: (1.0 + np.log(count)) * idf_V[at] for at, count in counted.items()}
        norm = float(np.sqrt(sum(value**2 for value in weights.values()))) or 1.0
        rows += [row] * len(weights)
        columns += list(weights)
        values += [value / norm for value in weights.values()]
    return csr_matrix((values, (rows, columns)), shape=(len(texts), len(place)))


def unit_or_zero(rows_NS: Floats) -> Floats:
    """Rows at unit length; those that are nearly zero become zero."""
    norms = np.linalg.norm(rows_NS, axis=1, keepdims=True)
    return np.asarray(np.where(norms > 1e-6, rows_NS / np.where(norms > 1e-6, norms, 1.0), 0.0))


def nearest(vectors_NS: Floats, centers_kS: npt.NDArray[np.floating]) -> Ints:
    """The nearest center of each row, int64[N], the first of equal ones; -1 for a row of zeros."""
    if not len(centers_kS):
        return np.full(len(vectors_NS), -1, dtype=np.int64)
    centers = np.asarray(centers_kS, dtype=np.float64)
    squared_Nk = (centers**2).sum(axis=1)[None] - 2.0 * vectors_NS @ centers.T  # plus the row's own, the same for all
    return np.where(vectors_NS.any(axis=1), squared_Nk.argmin(axis=1), -1)


def name_topics(texts: Sequence[str], label_N: Ints, tokenize: WordTokenizer, most: int = 4) -> list[list[str]]:
    """Each topic's words by c-TF-IDF (Grootendorst 2022, arXiv:2203.05794): frequent in it, rare in all together."""
    counts: list[Counter[str]] = [Counter() for _ in range(int(label_N.max(initial=-1)) + 1)]
    for text, label in zip(texts, label_N.tolist(), strict=True):
        if label >= 0:
            counts[label].update(word for word in WORD.findall(text.lower()) if tokenize(word))
    whole = sum(counts, Counter())
    average = sum(whole.values()) / max(len(counts), 1)
    names = []
    for counted in counts:
        size = max(sum(counted.values()), 1)
        weights = {word: count / size * np.log(1.0 + average / whole[word]) for word, count in counted.items()}
        names.append(sorted(weights, key=lambda word: (-weights[word], word))[:most])
    return names


def space_of(predicate: Predicate) -> TopicSpace | None:
    """The frozen space that a rule names; None for a rule without a topic.

    Raises:
        InputError: a space that is not on disk, or two spaces in one rule.
    """
    named = {str(one.value).rpartition("@")[2] for one in predicate.conditions if one.attribute == TOPIC}
    if not named:
        return None
    if len(named) > 1:
        raise InputError(f"the slice '{predicate}' names topics of two spaces; name those of one")
    fingerprint = named.pop()
    if fingerprint.isalnum():
        for file in sorted(_folder().glob(f"*-{fingerprint}.npz")):
            found = _read(file)
            if found is not None:
                return found
    raise InputError(
        f"the topics of the slice '{predicate}' are not below {_folder()}, or damaged; inspect again with --clusters, "
        "and set GEMMA4VEC_HOME to where that was done"
    )


def with_topics(
    columns: Mapping[str, list[Value]], predicate: Predicate, queries: Sequence[str]
) -> dict[str, list[Value]]:
    """Columns of queries with their topics, where a rule asks for them.

    Raises:
        InputError: as `space_of`.
    """
    space = space_of(predicate)
    return dict(columns) if space is None else {**columns, TOPIC: list(space.topics(queries))}


def _folder() -> Path:
    return home() / "topics"


def _write(file: Path, space: TopicSpace) -> None:
    with atomic_write(file, "wb") as stream:
        np.savez_compressed(
            stream,
            allow_pickle=False,
            tokenizer=np.array(space.tokenizer),
            words=np.array(space.words),
            idf=space.idf,
            axes=space.axes,
            centers=space.centers,
            names=np.array(space.names),
        )


@lru_cache(maxsize=4)
def _read_at(file: Path, stamp: tuple[int, int]) -> TopicSpace | None:
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays: dict[str, Any] = {name: stored[name] for name in stored.files}
        found = TopicSpace(
            str(arrays["tokenizer"]),
            arrays["words"].tolist(),
            arrays["idf"],
            arrays["axes"],
            arrays["centers"],
            tuple(arrays["names"].tolist()),
        )
        named_tokenizer(found.tokenizer)
    except (OSError, zipfile.BadZipFile, KeyError, *NPY_ERRORS):
        return None
    return found if file.stem.endswith(f"-{found.fingerprint}") else None


def _read(file: Path) -> TopicSpace | None:
    """A stored space; None for a damaged one, or one that is not what its name says."""
    try:
        state = file.stat()
    except OSError:
        return None
    return _read_at(file.absolute(), (state.st_mtime_ns, state.st_size))
