"""Teachers' vectors for the texts of a batch: from a model, whose vectors are cached on disk, or from a file.

Shapes: N texts, E dimensions of a teacher.
"""

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
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
from gemma4vec.recipe.terms import START, Matching
from gemma4vec.text.pretokenized import PretokenizedText
from gemma4vec.text.prompts import Document
from gemma4vec.training.engine.base_files import base_files
from gemma4vec.training.engine.distributed import World
from gemma4vec.training.terms import TERMS
from gemma4vec.training.terms.base import TeacherSettings
from gemma4vec.training.terms.teacher_vectors import read_vectors, vector_length

logger = logging.getLogger(__name__)

# Texts that a teacher encodes between two writes to disk, and before the first batch.
_CHUNK, _FIRST_CHUNK = 4096, 128


class ModelTeacher:
    """Any model that opens as an embedder, with its own prompts; a text is encoded once and then read from disk."""

    def __init__(self, name: str):
        self.name = name
        model = Embedder.load(name)
        if isinstance(model, Embedder):
            model.compiles_from = sys.maxsize  # never: it runs in a thread, and compilers have global state
        self.embedder = CachedEmbedder(model)
        self.dimension = self.embedder.dimension

    def prepare(self, queries: Sequence[str], documents: Sequence[Document]) -> bool:
        """Encode the texts that are not on disk yet; returns whether there were any."""
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
    """Vectors from a file; `training.terms.teacher_vectors` lists its formats.

    Raises:
        InputError: as `read_vectors`.
    """

    def __init__(self, path: str, key: str):
        self.path, self.key = Path(path).expanduser(), key
        self.places, self.vectors = read_vectors(self.path, key)
        self.dimension = self.vectors.shape[1]

    def prepare(self, queries: Sequence[str], documents: Sequence[Document]) -> bool:
        """Check that every text has a vector."""
        self.queries(queries)
        self.documents(documents)
        return False

    def queries(self, texts: Sequence[str]) -> Tensor:
        """`[N, E]`."""
        return self._look_up([("", text) for text in texts])

    def documents(self, texts: Sequence[Document]) -> Tensor:
        """`[N, E]`."""
        return self._look_up([(document.title or "", document.text) for document in texts])

    def _look_up(self, texts: Sequence[tuple[str, str]]) -> Tensor:
        missing = next((text for text in texts if text not in self.places), None)
        if missing is not None:
            raise InputError(f"{self.key}: {self.path} has no vector for the text {missing[1][:40]!r}; add it")
        return torch.from_numpy(np.asarray(self.vectors[[self.places[text] for text in texts]], dtype=np.float32))


Teacher = ModelTeacher | FileTeacher


@dataclass(frozen=True)
class TermTeacher:
    """An open teacher, and the kinds of text whose vectors its term reads."""

    settings: TeacherSettings
    model: Teacher

    def vectors(self, batch: RowBatch) -> dict[str, Tensor]:
        """The teacher's vectors of a batch, by kind of text: queries, positives `[N, E]`, negatives `[N*K, E]`."""
        flat = [document for documents in batch.negatives for document in documents]
        found: dict[str, Tensor] = {}
        if "queries" in self.settings.texts:
            found["queries"] = self.model.queries(batch.queries)
        if "positives" in self.settings.texts:
            found["positives"] = self.model.documents(batch.positives)
        if "negatives" in self.settings.texts and flat:
            found["negatives"] = self.model.documents(flat)
        return found


def open_teacher(settings: TeacherSettings, dimension: int, key: str) -> TermTeacher:
    """Open the teacher of a term, for a model of `dimension`; `key` is the term's place in the recipe.

    Raises:
        InputError: there is no such model or file, or its dimension needs a projection that the recipe does not name.
    """
    model: Teacher
    if settings.vectors is not None:
        model = FileTeacher(settings.vectors, f"{key}.vectors")
    else:
        assert settings.model is not None  # the recipe has one of the two
        model = ModelTeacher(settings.model)
    check_dimension(settings, model.dimension, dimension, key)
    return TermTeacher(settings, model)


def check_teachers(task: schema.Contrast, dimension: int, where: str) -> None:
    """Refuse teachers of another dimension where their small files show it: no weights and one vector are read.

    Raises:
        InputError: as `open_teacher`.
    """
    for key, _, settings in teachers_of(task, where):
        if not settings.same_dimension:
            continue
        if settings.vectors is not None:
            length: int | None = vector_length(Path(settings.vectors).expanduser(), f"{key}.vectors")
        else:
            assert settings.model is not None  # the recipe has one of the two
            folder = Path(settings.model)
            if folder.is_dir():
                length = folder_dimension(folder)
            else:
                with base_files(settings.model, f"{key}.teacher") as files:
                    length = folder_dimension(files.path)
        if length is not None:
            check_dimension(settings, length, dimension, key)


def named_teachers(task: schema.Contrast, start: str | None, where: str = "task") -> schema.Contrast:
    """Return the task with the folder of `model.start` in place of each `teacher: start`.

    Raises:
        InputError: there is no start; `where` begins the line.
    """
    for number, term in enumerate(task.terms):
        if isinstance(term, Matching) and term.teacher == START and start is None:
            raise InputError(
                f"{where}.terms.{number}.teacher: start is the model of model.start, which is not given; add "
                "model.start=RUN"
            )
    terms = tuple(
        term.model_copy(update={"teacher": start}) if isinstance(term, Matching) and term.teacher == START else term
        for term in task.terms
    )
    return task.model_copy(update={"terms": terms})


def teachers_of(task: schema.Contrast, where: str = "task") -> Iterator[tuple[str, str, TeacherSettings]]:
    """(place in the recipe, label, teacher) of each term that has a teacher."""
    for number, term in enumerate(task.terms):
        settings = TERMS[term.kind].teacher(term)
        if settings is not None:
            yield f"{where}.terms.{number}", term.label, settings


def check_dimension(settings: TeacherSettings, teacher: int, model: int, key: str) -> None:
    """Refuse a direct match of vectors of different lengths.

    Raises:
        InputError: the key, and both dimensions.
    """
    if settings.same_dimension and teacher != model:
        raise InputError(
            f"{key}.form: the teacher has {teacher} dimensions, the model {model}; use form: projection, "
            "form: relational or form: listwise"
        )


def open_teachers(
    task: schema.Contrast, rows: Sequence[Row], dimension: int, world: World, where: str = "task"
) -> dict[str, TermTeacher]:
    """The teachers of a contrast by the labels of their terms.

    A file must have a vector for every text of the rows. A model encodes the texts of the next batches
    (`encode_ahead`), because a short training never meets most of a large source. Of several processes the first
    encodes all rows here, and the others read its cache.

    Raises:
        InputError: as `open_teacher` and `texts_of`, or a file without a vector for a text of the rows.
    """
    found: dict[str, TermTeacher] = {}
    with world.first_before_others():  # it encodes, the others read what it cached
        for key, label, settings in teachers_of(task, where):
            teacher = found[label] = open_teacher(settings, dimension, key)
            if isinstance(teacher.model, ModelTeacher) and world.size == 1:
                next(texts_of(settings, rows[:1], key), None)
                continue
            for done, queries, documents in texts_of(settings, rows, key):
                if teacher.model.prepare(queries, documents):
                    logger.info(f"teacher {settings.model}: {done:,} of {len(rows):,} rows")
    return found


def encode_ahead(teachers: Iterable[TermTeacher], batches: Iterator[RowBatch], rows: int) -> Iterator[RowBatch]:
    """The batches, of `rows` rows each, after the teachers have encoded their texts.

    Many batches are encoded at a time, since each time writes a file. The first time has few and each later one twice
    as many, so that training begins soon and a short one waits for little that it never reads. This runs in the thread
    that makes batches: on a CPU it competes with the training steps.
    """
    models = [teacher for teacher in teachers if isinstance(teacher.model, ModelTeacher)]
    if not models:
        yield from batches
        return
    chunk = _FIRST_CHUNK
    while portion := list(islice(batches, max(1, chunk // (2 * rows)))):
        chunk = min(2 * chunk, _CHUNK)
        for teacher in models:
            texts = teacher.settings.texts
            queries: dict[str, None] = {}
            documents: dict[Document, None] = {}
            for one in portion:
                queries |= dict.fromkeys(one.queries if "queries" in texts else ())
                documents |= dict.fromkeys(one.positives if "positives" in texts else ())
                documents |= dict.fromkeys(chain.from_iterable(one.negatives) if "negatives" in texts else ())
            teacher.model.prepare(list(queries), list(documents))
        yield from portion


def texts_of(
    settings: TeacherSettings, rows: Sequence[Row], key: str, size: int = _CHUNK
) -> Iterator[tuple[int, list[str], list[Document]]]:
    """(rows read, queries, documents) in portions of about `size` texts that a teacher has to encode.

    A text comes once in a portion, and again in a later one that contains it: no list of all texts is held in memory.

    Raises:
        InputError: the rows are tokens, which only the model itself can read.
    """
    queries: dict[str, None] = {}
    documents: dict[Document, None] = {}
    for number, row in enumerate(rows, start=1):
        if isinstance(row.query, PretokenizedText):
            raise InputError(f"{key}: the data has token ids, a teacher reads texts; use batch.tokenize=each_time")
        if "queries" in settings.texts:
            queries[row.query] = None
        if "positives" in settings.texts:
            documents |= dict.fromkeys(row.pos)
        if "negatives" in settings.texts:
            documents |= dict.fromkeys(row.neg)
        if max(len(queries), len(documents)) >= size or number == len(rows):
            yield number, list(queries), list(documents)
            queries, documents = {}, {}
