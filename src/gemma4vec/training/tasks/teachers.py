"""The vectors of teachers for the texts of a batch: by a model whose vectors are kept on disk, or from a file.

Shapes: N texts, E dimensions of a teacher.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gemma4vec.data.batching.batches import RowBatch
from gemma4vec.data.rows.rows import Row
from gemma4vec.errors import InputError
from gemma4vec.model.inference.cached_embedder import CachedEmbedder
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.save.output_dimension import folder_dimension
from gemma4vec.recipe import schema
from gemma4vec.recipe.terms import Matching
from gemma4vec.text.pretokenized import PretokenizedText
from gemma4vec.text.prompts import Document
from gemma4vec.training.engine.base_files import base_files
from gemma4vec.training.engine.distributed import World
from gemma4vec.training.tasks.teacher_vectors import read_vectors, vector_length

Say = Callable[[str], None]
# Texts that a teacher is asked for at once, between two writes to disk.
_CHUNK = 4096


class ModelTeacher:
    """Any model that opens as an embedder, with its own prompts; what it has encoded once comes from disk."""

    def __init__(self, name: str, say: Say):
        self.name = name
        model = Embedder.load(name, notice=say)
        if isinstance(model, Embedder):
            model.compiles_from = sys.maxsize  # never: it works in a thread, and compilers have global state
        self.embedder = CachedEmbedder(model)
        self.dimension = self.embedder.dimension

    def learn(self, queries: Sequence[str], documents: Sequence[Document]) -> bool:
        """Encode what is not on disk yet; whether that was anything."""
        before = self.embedder.computed
        if queries:
            self.queries(queries)
        if documents:
            self.documents(documents)
        return self.embedder.computed > before

    def queries(self, texts: Sequence[str]) -> Tensor:
        """`[N, E]`."""
        return torch.from_numpy(self.embedder.encode_query(list(texts)))

    def documents(self, texts: Sequence[Document]) -> Tensor:
        """`[N, E]`."""
        return torch.from_numpy(self.embedder.encode_document(list(texts)))


class FileTeacher:
    """Vectors that somebody has computed, from a file (`training.tasks.teacher_vectors` says of which kinds).

    Raises:
        InputError: as `read_vectors`.
    """

    def __init__(self, path: str, key: str):
        self.path, self.key = Path(path).expanduser(), key
        self.places, self.vectors = read_vectors(self.path, key)
        self.dimension = self.vectors.shape[1]

    def learn(self, queries: Sequence[str], documents: Sequence[Document]) -> bool:
        """See that every text has its vector."""
        self.queries(queries)
        self.documents(documents)
        return False

    def queries(self, texts: Sequence[str]) -> Tensor:
        """`[N, E]`."""
        return self._found([("", text) for text in texts])

    def documents(self, texts: Sequence[Document]) -> Tensor:
        """`[N, E]`."""
        return self._found([(document.title or "", document.text) for document in texts])

    def _found(self, texts: Sequence[tuple[str, str]]) -> Tensor:
        missing = next((text for text in texts if text not in self.places), None)
        if missing is not None:
            raise InputError(f"{self.key}: {self.path} has no vector for the text {missing[1][:40]!r}; add it")
        return torch.from_numpy(np.asarray(self.vectors[[self.places[text] for text in texts]], dtype=np.float32))


Teacher = ModelTeacher | FileTeacher


def open_teacher(term: Matching, dimension: int, key: str, say: Say) -> Teacher:
    """The teacher of a term, for a model of so many dimensions.

    Raises:
        InputError: there is no such model or file, or its dimensions need a projection that is not named.
    """
    teacher: Teacher
    if term.vectors is not None:
        teacher = FileTeacher(term.vectors, f"{key}.vectors")
    else:
        assert term.teacher is not None  # the recipe has one of the two
        teacher = ModelTeacher(term.teacher, say)
    check_dimension(term, teacher.dimension, dimension, key)
    return teacher


def check_teacher(term: Matching, dimension: int, key: str, say: Say) -> None:
    """Refuse a teacher of another dimension, as far as its small files tell: no weight is read, no vector but one.

    Raises:
        InputError: as `open_teacher`.
    """
    if term.form != "direct":
        return
    if term.vectors is not None:
        length: int | None = vector_length(Path(term.vectors).expanduser(), f"{key}.vectors")
    else:
        assert term.teacher is not None  # the recipe has one of the two
        folder = Path(term.teacher)
        if folder.is_dir():
            length = folder_dimension(folder)
        else:
            with base_files(term.teacher, say, f"{key}.teacher") as files:
                length = folder_dimension(files.path)
    if length is not None:
        check_dimension(term, length, dimension, key)


def check_dimension(term: Matching, teacher: int, model: int, key: str) -> None:
    """Refuse a direct match of vectors of different lengths.

    Raises:
        InputError: the key, and both dimensions.
    """
    if term.form == "direct" and teacher != model:
        raise InputError(
            f"{key}.form: the teacher has {teacher} dimensions, the model {model}; use form: projection, "
            "or form: relational"
        )


def open_teachers(
    task: schema.Contrast, rows: Sequence[Row], dimension: int, world: World, say: Say, where: str = "task"
) -> dict[str, tuple[Matching, Teacher]]:
    """The teachers of a contrast by the names of their terms.

    A file is looked through for every text of the rows. A model encodes what batches draw (`knowing`): a short training
    never meets most of a large source. Of several processes the first encodes all rows here, and the others find that.

    Raises:
        InputError: as `open_teacher` and `texts_of`, or a file without a text of the rows.
    """
    found: dict[str, tuple[Matching, Teacher]] = {}
    with world.first_before_others():  # it encodes, the others find what it kept
        for number, term in enumerate(task.terms):
            if isinstance(term, Matching):
                key = f"{where}.terms.{number}"
                teacher = open_teacher(term, dimension, key, say)
                found[term.label] = (term, teacher)
                if isinstance(teacher, ModelTeacher) and world.size == 1:
                    next(texts_of(term, rows[:1], key), None)
                    continue
                for read, queries, documents in texts_of(term, rows, key):
                    if teacher.learn(queries, documents):
                        say(f"teacher {term.teacher}: {read:,} of {len(rows):,} rows")
    return found


def knowing(teachers: Iterable[tuple[Matching, Teacher]], drawn: Iterator[RowBatch], rows: int) -> Iterator[RowBatch]:
    """The batches, of `rows` rows each, whose texts teachers have encoded: many at a time, since each time is a file.

    This happens where batches are made, beside the training: on a CPU it takes its part of the steps' seconds.
    """
    models = [(term, teacher) for term, teacher in teachers if isinstance(teacher, ModelTeacher)]
    if not models:
        yield from drawn
        return
    while portion := list(islice(drawn, max(1, _CHUNK // (2 * rows)))):
        for term, teacher in models:
            queries: dict[str, None] = {}
            documents: dict[Document, None] = {}
            for one in portion:
                queries |= dict.fromkeys(one.queries if "queries" in term.texts else ())
                documents |= dict.fromkeys(one.positives if "positives" in term.texts else ())
                documents |= dict.fromkeys(chain.from_iterable(one.negatives) if "negatives" in term.texts else ())
            teacher.learn(list(queries), list(documents))
        yield from portion


def taught(term: Matching, teacher: Teacher, drawn: RowBatch) -> dict[str, Tensor]:
    """A teacher's vectors of a batch, by texts: `queries`, `positives` `[N, E]`, `negatives` `[N*K, E]`."""
    flat = [document for documents in drawn.negatives for document in documents]
    wanted: dict[str, Tensor] = {}
    if "queries" in term.texts:
        wanted["queries"] = teacher.queries(drawn.queries)
    if "positives" in term.texts:
        wanted["positives"] = teacher.documents(drawn.positives)
    if "negatives" in term.texts and flat:
        wanted["negatives"] = teacher.documents(flat)
    return wanted


def texts_of(
    term: Matching, rows: Sequence[Row], key: str, size: int = _CHUNK
) -> Iterator[tuple[int, list[str], list[Document]]]:
    """How many rows have been read, and the texts of them that a teacher is asked for, about `size` at a time.

    A text comes once in such a portion, and again in a later one that has it too: no list of all texts is kept.

    Raises:
        InputError: the rows are tokens, which only the model itself can read.
    """
    queries: dict[str, None] = {}
    documents: dict[Document, None] = {}
    for number, row in enumerate(rows, start=1):
        if isinstance(row.query, PretokenizedText):
            raise InputError(f"{key}: the data has token ids, a teacher reads texts; use batch.tokenize=each_time")
        if "queries" in term.texts:
            queries[row.query] = None
        if "positives" in term.texts:
            documents |= dict.fromkeys(row.pos)
        if "negatives" in term.texts:
            documents |= dict.fromkeys(row.neg)
        if max(len(queries), len(documents)) >= size or number == len(rows):
            yield number, list(queries), list(documents)
            queries, documents = {}, {}
