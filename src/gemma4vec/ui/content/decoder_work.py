"""What decoders of listed runs write: the texts on a walk between two vectors, and what comes back of a text's vector.

Decoders are loaded when they are first asked, in the thread that searches. The last ones stay loaded.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gemma4vec.errors import InputError, WorkError
from gemma4vec.reading.json_values import load_own_json
from gemma4vec.recipe.inversion import DECODER_FILE, SUGGESTER_FILE
from gemma4vec.serving.search.display import to_one_line
from gemma4vec.serving.search.index import SearchIndex
from gemma4vec.text.text_embedder import TextEmbedder
from gemma4vec.ui.content.search_worker import LONGEST_QUERY, SearchWorker, Source

if TYPE_CHECKING:
    from gemma4vec.inversion.decoder import VectorDecoder

HITS = 10
EXCERPT = 200  # characters
SEVERAL = (1, 4, 16)  # texts that are written for a vector
_KEPT = 2
_PIECES = re.compile(r"\w+|\W+")
_TOO_LARGE = "the models are too large for the free memory; close other programs"

OpenDecoder = Callable[[Path, TextEmbedder], "VectorDecoder"]


@dataclass(frozen=True)
class ListedDecoder:
    """A decoder that a run trained: what its file says, whose vectors it reads (`encoder`) and in which role."""

    run_id: str
    name: str
    run: Path
    encoder: str
    role: str
    dimension: int


@dataclass(frozen=True)
class ListedModel:
    """A run with an embedding model."""

    run_id: str
    name: str
    run: Path


def list_decoders(runs: Iterable[Mapping[str, Any]]) -> list[ListedDecoder]:
    """The decoders of runs, in the order of the runs; a damaged one is not offered."""
    found = []
    for run in runs:
        path = Path(run["path"])
        try:
            about = load_own_json(path / "model" / DECODER_FILE)
            facts = str(about["encoder_name"]), str(about["role"]), int(about["dimension"])
        except (OSError, ValueError, TypeError, KeyError):
            continue
        found.append(ListedDecoder(str(run["run_id"]), str(run["name"]), path, *facts))
    return found


def list_models(runs: Iterable[Mapping[str, Any]]) -> list[ListedModel]:
    """The runs that have an embedding model, in their order."""
    found = []
    for run in runs:
        model = Path(run["path"]) / "model"
        if model.is_dir() and not any((model / name).is_file() for name in (DECODER_FILE, SUGGESTER_FILE)):
            found.append(ListedModel(str(run["run_id"]), str(run["name"]), model.parent))
    return found


def find_listed(listed: "list[Any]", run_id: str, what: str) -> Any:
    """The decoder or model of a run.

    Raises:
        InputError: it is not listed.
    """
    for one in listed:
        if one.run_id == run_id:
            return one
    raise InputError(f"no listed run '{run_id[:100]}' has {what}; choose one from the list")


def open_decoder(run: Path, embedder: TextEmbedder) -> "VectorDecoder":
    """The decoder of a run; this imports torch.

    Raises:
        InputError: it is damaged, or another model's.
    """
    from gemma4vec.inversion.decoder import VectorDecoder

    return VectorDecoder.load(run, embedder)


class DecoderWork:
    """Walks and inversions by models of listed runs, in the thread of `worker`."""

    def __init__(self, worker: SearchWorker, opening: OpenDecoder = open_decoder):
        self._worker, self._opening = worker, opening
        self._decoders: OrderedDict[tuple[Path, Path], VectorDecoder] = OrderedDict()

    def walk(self, source: Source, decoder: ListedDecoder, query: str, to: int | None) -> dict[str, Any]:
        """The walk from a query to a document, or to the mean of its first hits.

        Args:
            source: an index with its model.
            decoder: of this model's query vectors.
            query: text.
            to: row of the index; None for the hits' mean.

        Returns:
            What `fanout.one_walk.walk_to` has, with `target` in words, and the first `hits`.

        Raises:
            InputError: an empty or too long query, a row that the index lacks, a decoder of another model; query and
                target have equal vectors.
            BusyError: too many searches wait.
        """
        words = _checked(query)
        return self._worker.run(lambda: self._guarded(lambda: self._walk(source, decoder, words, to))).result()

    def invert(self, model: ListedModel, decoder: ListedDecoder, text: str, n: int) -> dict[str, Any]:
        """What comes back of a text's vector, nearest first.

        Raises:
            InputError: an empty or too long text, an odd number of texts, a decoder of another model.
            BusyError: too many searches wait.
        """
        words = _checked(text)
        if n not in SEVERAL:
            raise InputError(f"choose {', '.join(map(str, SEVERAL))} texts")
        return self._worker.run(lambda: self._guarded(lambda: self._invert(model, decoder, words, n))).result()

    def _guarded(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return work()
        except MemoryError as error:
            self._decoders.clear()
            raise WorkError(_TOO_LARGE) from error

    def _decoder(self, decoder: ListedDecoder, run: Path, embedder: TextEmbedder) -> "VectorDecoder":
        key = decoder.run, run
        if key not in self._decoders:
            while len(self._decoders) >= _KEPT:  # before the next one needs its memory
                self._decoders.popitem(last=False)
            self._decoders[key] = self._opening(decoder.run, embedder)
        self._decoders.move_to_end(key)
        return self._decoders[key]

    def _walk(self, source: Source, decoder: ListedDecoder, query: str, to: int | None) -> dict[str, Any]:
        from gemma4vec.fanout.one_walk import walk_to
        from gemma4vec.fanout.setting import Choices
        from gemma4vec.fanout.writers import DecoderWriter
        from gemma4vec.retrieval.exact import search

        embedder, _ = self._worker.model(source.run)
        index = SearchIndex.open(source.folder, embedder.fingerprint)
        writer = DecoderWriter(self._decoder(decoder, source.run, embedder))
        choices = Choices()
        start_d = embedder.encode_query([query])[0]
        rows = [int(row) for row in search(start_d[None], index.vectors_MD, HITS).indices[0] if row >= 0]
        if to is not None and not 0 <= to < index.count:
            raise InputError(f"this index has no document {to}")
        if not rows:
            raise InputError("this index has no documents, so there is nothing to walk to")
        targets = rows[: choices.feedback] if to is None else [to]
        targets_Ad = np.asarray(index.vectors_MD[targets], dtype=np.float32)
        found = walk_to(embedder, writer, choices, start_d, targets_Ad, index.vectors_MD)
        hits = [{"row": row, **_excerpt(index, row)} for row in rows]
        target = (
            f"the mean of the query's first {len(targets)} hits" if to is None else str(_excerpt(index, to)["text"])
        )
        about = {"model": source.model, "query": query, "writer": writer.name, "target": target, "hits": hits}
        return {**about, "documents": index.count, "target_id": None if to is None else index.documents[to].id, **found}

    def _invert(self, model: ListedModel, decoder: ListedDecoder, text: str, n: int) -> dict[str, Any]:
        from gemma4vec.inversion.candidates import embed
        from gemma4vec.inversion.invert import Inverter, Settings
        from gemma4vec.inversion.measures import is_exact, split_words, token_set_f1

        embedder, _ = self._worker.model(model.run)
        opened = self._decoder(decoder, model.run, embedder)
        inverter = Inverter(opened, embedder, Settings(n))
        vector_1d = embed(embedder, opened.facts.role, [text])
        words = split_words(text)
        candidates = [
            {**asdict(one), "f1": token_set_f1(split_words(one.text), words), "exact": is_exact(one.text, text)}
            for one in inverter.ranked(vector_1d)[0]
        ]
        nearest, nearest_cosine = inverter.nearest(vector_1d)[0]
        return {
            "model": model.name,
            "decoder": decoder.name,
            "role": opened.facts.role,
            "given": text,
            "vector": [float(value) for value in vector_1d[0]],
            "candidates": candidates,
            "pieces": [mark_common(text, candidates[0]["text"]), mark_common(candidates[0]["text"], text)],
            "nearest": nearest,
            "nearest_cosine": nearest_cosine,
            "nearest_f1": None if nearest is None else token_set_f1(split_words(nearest), words),
            "too_long": bool(opened.parts.frame.longer(opened.parts.tokenizer, [text])),
            "text_tokens": opened.facts.text_tokens,
        }


def mark_common(text: str, other: str) -> list[tuple[str, bool]]:
    """Cut a text into runs of (text, whether these words are in the other text too), as F1 counts words."""
    from gemma4vec.inversion.measures import split_words

    known = set(split_words(other))
    runs: list[tuple[str, bool]] = []
    for piece in _PIECES.findall(text):
        common = piece.lower() in known
        if runs and runs[-1][1] == common:
            runs[-1] = (runs[-1][0] + piece, common)
        else:
            runs.append((piece, common))
    return runs


def _checked(text: str) -> str:
    """A text that tokenizers accept: what is no text (lone surrogates) is replaced."""
    if not text.strip() or len(text) > LONGEST_QUERY:
        raise InputError(f"give a text of 1 to {LONGEST_QUERY:,} characters")
    return text.encode("utf-8", "replace").decode("utf-8")


def _excerpt(index: SearchIndex, row: int) -> dict[str, str]:
    document = index.documents[row]
    words = f"{document.title} {document.text}" if document.title else document.text
    return {"id": document.id, "text": to_one_line(words, EXCERPT)}
