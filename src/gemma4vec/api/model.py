"""A model that turns texts into vectors: `load`.

Shapes: N and M texts, D dimensions. Vectors are float32 rows of length one.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gemma4vec.api.display import Showing, Shown
from gemma4vec.api.runs import Run
from gemma4vec.errors import InputError
from gemma4vec.files import atomic_folder, home
from gemma4vec.ledger.run_folder import named_run
from gemma4vec.model.inference.truncated_embedder import check_dimension, truncate
from gemma4vec.text.prompts import Document
from gemma4vec.text.text_embedder import TextEmbedder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Vectors = NDArray[np.float32]
Progress = Callable[[int, int], None]
DTYPES = ("auto", "fp32", "bf16")
MODULES_FILE = "modules.json"


class Model(Showing):
    """A model that turns queries and documents into unit vectors; `load` makes one.

    Texts are sorted by length and batched by tokens, so there is no batch size.

    Attributes:
        name: the run's id, the folder's name or the hub's.
        folder: the folder that it was opened from; None for a base that nobody trained.
        embedder: what encodes, without truncation.
    """

    def __init__(self, embedder: TextEmbedder, *, truncate_dim: int | None = None):
        self.embedder = embedder
        self.name = embedder.name
        self.folder = embedder.folder
        self._truncate_dim: int | None = None
        self.truncate_dim = truncate_dim

    @property
    def truncate_dim(self) -> int | None:
        """Number of leading dimensions that are kept, scaled to unit length again; None keeps all.

        Of a model that was trained with Matryoshka dimensions this costs little (Kusupati et al. 2022,
        arXiv:2205.13147). Setting it changes the vectors from then on.

        Raises:
            InputError: not a whole number from 1 to the model's dimension.
        """
        return self._truncate_dim

    @truncate_dim.setter
    def truncate_dim(self, dimension: int | None) -> None:
        if dimension is not None:
            check_dimension(dimension, self.embedder.dimension)
        self._truncate_dim = dimension

    @property
    def dimension(self) -> int:
        """D, the length of the vectors that this model returns."""
        return self._truncate_dim or self.embedder.dimension

    @property
    def max_tokens(self) -> int | None:
        """Where texts are cut, in tokens; None where the model has no limit of its own."""
        from gemma4vec.model.inference.embedder import Embedder, SentenceTransformerEmbedder

        if isinstance(self.embedder, SentenceTransformerEmbedder):
            limit = self.embedder.model.max_seq_length
            return None if limit is None else int(limit)
        assert isinstance(self.embedder, Embedder)
        return self.embedder.max_tokens

    @property
    def prompts(self) -> dict[str, str]:
        """What the model puts before queries and documents."""
        from gemma4vec.model.inference.embedder import Embedder, SentenceTransformerEmbedder

        if isinstance(self.embedder, SentenceTransformerEmbedder):
            return {role: text or "" for role, text in self.embedder.model.prompts.items()}
        assert isinstance(self.embedder, Embedder)
        return self.embedder.prompts.as_dict()

    def encode_query(self, queries: str | Sequence[str], *, progress: Progress | None = None) -> Vectors:
        """Encode queries, with the model's query prompt.

        Args:
            queries: one text, or N of them.
            progress: called as `progress(done, total)` with numbers of texts.

        Returns:
            float32[N, D], rows of length one; float32[D] for one text.

        Raises:
            InputError: something that is not a text.

        Example:
            >>> model.encode_query(["open a file", "sort a list"]).shape == (2, model.dimension)
            True
        """
        texts = _strings(queries, "encode_query")
        return self._finish(self.embedder.encode_query(texts, progress=progress), queries)

    def encode_document(
        self,
        documents: str | Mapping[str, str] | Sequence[str | Mapping[str, str]],
        *,
        progress: Progress | None = None,
    ) -> Vectors:
        """Encode documents, with the model's document prompt.

        Args:
            documents: one or M of them; each a text, or `{"text": ..., "title": ...}`.
            progress: called as `progress(done, total)` with numbers of texts.

        Returns:
            float32[M, D], rows of length one; float32[D] for one document.

        Raises:
            InputError: something that is neither a text nor a mapping with a `text`.

        Example:
            >>> model.encode_document({"title": "io", "text": "def open_file(path): ..."}).shape == (model.dimension,)
            True
        """
        one = isinstance(documents, str | Mapping | Document)
        listed: list[object] = [documents] if one else _listed(documents, "encode_document")
        read = [_document(value, place) for place, value in enumerate(listed)]
        return self._finish(self.embedder.encode_document(read, progress=progress), "" if one else documents)

    def encode(self, texts: str | Sequence[str], prompt: str = "", *, progress: Progress | None = None) -> Vectors:
        """Encode texts with `prompt` before each: float32[N, D], rows of length one; float32[D] for one text.

        For retrieval use `encode_query` and `encode_document`, whose prompts the model was trained with.

        Raises:
            InputError: something that is not a text.
        """
        return self._finish(self.embedder.encode(_strings(texts, "encode"), prompt, progress=progress), texts)

    def similarity(self, a: ArrayLike, b: ArrayLike) -> Vectors:
        """Cosine similarity of every vector of `a` with every vector of `b`, as in sentence-transformers.

        Args:
            a, b: [N, D] and [M, D] vectors of one model; a single vector [D] counts as one row.

        Returns:
            float32[N, M], from -1 to 1.

        Raises:
            InputError: shapes that do not fit, such as vectors of two models.

        Example:
            >>> vectors = model.encode_document(["a tree", "a tree", "a river"])
            >>> bool(model.similarity(vectors[0], vectors)[0, 1] > 0.999)
            True
        """
        left_ND, right_MD = np.atleast_2d(np.asarray(a, np.float32)), np.atleast_2d(np.asarray(b, np.float32))
        if left_ND.ndim != 2 or right_MD.ndim != 2 or left_ND.shape[1] != right_MD.shape[1]:
            raise InputError(
                f"similarity: shapes {list(left_ND.shape)} and {list(right_MD.shape)} do not fit; "
                "give [N, D] and [M, D] of one model and one truncate_dim"
            )
        width = max(1, left_ND.shape[1])
        return np.asarray(truncate(left_ND, width) @ truncate(right_MD, width).T, dtype=np.float32)

    def save(self, folder: str | Path) -> Path:
        """Write the model as a sentence-transformers folder, all or nothing; loaded again it returns equal vectors.

        Args:
            folder: a new one, or that of an earlier model, which is replaced.

        Returns:
            The folder.

        Raises:
            InputError: a base that nobody trained; a model whose vectors or texts are cut by settings that a folder
                does not keep; a folder with other files in it.
            WorkError: the disk is full or the folder cannot be written.
        """
        out = Path(folder)
        self._check_savable(out)
        assert self.folder is not None
        if out.resolve() == self.folder.resolve():
            return out
        from gemma4vec.model.inference.embedder import SentenceTransformerEmbedder

        with atomic_folder(out) as temporary:
            if isinstance(self.embedder, SentenceTransformerEmbedder):
                self.embedder.model.save(str(temporary))
            else:
                shutil.copytree(self.folder, temporary, dirs_exist_ok=True)
        return out

    def to_sentence_transformers(self) -> "SentenceTransformer":
        """The same model in sentence-transformers, to be used with what that library offers.

        Raises:
            InputError: a base that nobody trained, which is no sentence-transformers folder.
        """
        from sentence_transformers import SentenceTransformer

        if self.folder is None:
            raise InputError(f"{self.name} is a base that nobody trained; sentence-transformers opens saved models")
        from gemma4vec.model.bases.foreign_code import has_our_module

        # The library calls our module foreign. Installed code alone runs, never a file that came with the folder.
        ours = has_our_module(self.folder)
        opened = SentenceTransformer(
            str(self.folder), trust_remote_code=ours, truncate_dim=self._truncate_dim, local_files_only=True
        )
        if self.max_tokens is not None:
            opened.max_seq_length = self.max_tokens
        return opened

    def _finish(self, vectors_ND: Vectors, given: object) -> Vectors:
        """Truncate, and take the row of a single text."""
        if self._truncate_dim is not None:
            vectors_ND = truncate(vectors_ND, self._truncate_dim)
        return vectors_ND[0] if isinstance(given, str) else vectors_ND

    def _check_savable(self, out: Path) -> None:
        if self.folder is None:
            raise InputError(f"{self.name} is a base that nobody trained; there is no model of its own to save")
        if self._truncate_dim is not None:
            raise InputError(
                f"a saved model keeps all {self.embedder.dimension} dimensions; set truncate_dim to None to save it, "
                f"and load it with truncate_dim={self._truncate_dim}"
            )
        kept = load_limit(self.folder)
        if kept is not None and kept != self.max_tokens:
            raise InputError(
                f"{self.name} was loaded with max_tokens={self.max_tokens} and a saved model keeps {kept}; load it "
                "without max_tokens to save it"
            )
        if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MODULES_FILE).is_file())):
            raise InputError(f"{out} holds something else than a model; name a new folder")

    def _shown(self) -> Shown:
        truncated = f" of {self.embedder.dimension:,}" if self._truncate_dim else ""
        rows: list[list[object]] = [
            ["dimensions", f"{self.dimension:,}{truncated}"],
            ["cut at", f"{self.max_tokens:,} tokens" if self.max_tokens else "no limit"],
        ]
        rows += [[f"{role} prompt", repr(text)] for role, text in self.prompts.items()]
        rows.append(["folder", self.folder])
        return Shown(f"Model {self.name}", ["", ""], rows)


ModelLike = Model | Run | str | Path
"""What names a model: one that is loaded, a run, or what `load` takes."""


def load(
    model: ModelLike,
    *,
    device: str | None = None,
    dtype: str | None = None,
    truncate_dim: int | None = None,
    max_tokens: int | None = None,
) -> Model:
    """Load a model for encoding.

    Args:
        model: a run (from `train`, its folder, its id, or `latest`), a folder that sentence-transformers opens, a hub
            id, or `bundled:gemma-3-270m` for a base that nobody trained (mean of its causal states).
        device: "cpu", "cuda"; None takes what is there.
        dtype: "fp32", "bf16"; None takes what is fast here.
        truncate_dim: number of leading dimensions to keep of every vector (Matryoshka).
        max_tokens: cut texts at this many tokens instead of the model's limit, which is never exceeded.

    Returns:
        The model: `encode_query`, `encode_document`, `encode`, `similarity`, `truncate_dim`, `save`.

    Raises:
        InputError: there is no such model, the run has none yet, or a setting is wrong.
        WorkError: the model does not attend as it says.

    Example:
        >>> import gemma4vec as g4v
        >>> model = g4v.load(folder, dtype="fp32")
        >>> scores = model.similarity(model.encode_query(["open a file"]), model.encode_document(["def open(): ..."]))
        >>> scores.shape
        (1, 1)
    """
    if isinstance(model, Model):
        raise InputError(f"{model.name} is loaded already; set its truncate_dim, or load its folder again")
    embedder = open_embedder(model, device=device, dtype=dtype, max_tokens=max_tokens)
    return Model(embedder, truncate_dim=truncate_dim)


def open_embedder(
    model: Run | str | Path, *, device: str | None = None, dtype: str | None = None, max_tokens: int | None = None
) -> TextEmbedder:
    """As `load`, but what the rest of the package encodes with."""
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"dtype {dtype}: use one of {', '.join(DTYPES)}")
    if max_tokens is not None and max_tokens < 1:
        raise InputError(f"max_tokens {max_tokens}: give a number above zero")
    from gemma4vec.model.inference.embedder import Embedder

    run = model.run_folder if isinstance(model, Run) else named_run(model, home())
    name = str(run.path) if run is not None else str(model)
    return Embedder.load(name, device=device, dtype=None if dtype == "auto" else dtype, max_tokens=max_tokens)


def load_limit(folder: Path) -> int | None:
    """The limit in tokens that a folder of ours keeps; None for other folders."""
    from gemma4vec.model.save.read_model import SETTINGS_FILE, model_of, read_settings

    return model_of(read_settings(folder)).max_tokens if (folder / SETTINGS_FILE).is_file() else None


def _strings(texts: object, method: str) -> list[str]:
    strings: list[str] = []
    for place, text in enumerate([texts] if isinstance(texts, str) else _listed(texts, method)):
        if not isinstance(text, str):
            raise InputError(f"{method}: item {place} is {type(text).__name__}, not a text; give strings")
        strings.append(text)
    return strings


def _listed(values: object, method: str) -> list[object]:
    if not isinstance(values, Iterable):
        raise InputError(f"{method}: {type(values).__name__} is no list of texts; give a string or a list of strings")
    return list(values)


def _document(value: object, place: int) -> Document:
    if isinstance(value, str | Document):
        return value if isinstance(value, Document) else Document(value)
    if isinstance(value, Mapping):
        text, title = value.get("text"), value.get("title")
        if isinstance(text, str) and isinstance(title, str | None):
            return Document(text, title or None)
    raise InputError(f"encode_document: item {place} must be a text or {{'text': ..., 'title': ...}}")
