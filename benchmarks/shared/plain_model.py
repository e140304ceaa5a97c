"""A merged folder opened by sentence-transformers alone, with the same titles in the same prompts.

What it does is what any user of that library would do with the folder; only titles need a hand, since a prompt there is
one fixed text and says "none" for the title.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer

from gemma4vec.errors import InputError
from gemma4vec.text.prompts import Document, Prompted, Prompts

Vectors = npt.NDArray[np.float32]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def model_folder(name: str) -> Path:
    """The merged model that a run folder or a model folder holds.

    Raises:
        InputError: there is none.
    """
    path = Path(name)
    inner = path / "model" if (path / "manifest.json").exists() else path
    if not (inner / "modules.json").exists():
        raise InputError(f"{path} holds no merged model (modules.json is missing); name a finished run or its model/")
    return inner


class PlainModel:
    """`SentenceTransformer(folder)`, shaped so that `gemma4vec.evaluation` can evaluate it."""

    def __init__(self, folder: Path, prompts: Prompts, *, dtype: str, device: str | None, batch_size: int = 32):
        self.model = SentenceTransformer(
            str(folder),
            device=device,
            model_kwargs={"dtype": DTYPES[dtype]},
            local_files_only=True,
            trust_remote_code=True,  # readouts that sentence-transformers lacks are a class of gemma4vec's
        )
        self.prompts = prompts
        self.batch_size = batch_size
        self.name = self.fingerprint = f"sentence-transformers-{dtype}"

    def describe(self) -> dict[str, Any]:
        """What explains its scores."""
        return {"kind": "sentence-transformers", "batch_size": self.batch_size}

    def encode_query(self, queries: Sequence[str], *, progress: Any = None) -> Vectors:
        """`[N, D]` vectors of queries, through the library's own query prompt."""
        return self._vectors(self.model.encode_query(list(queries), **self._settings))

    def encode_document(self, documents: Sequence[str | Document], *, progress: Any = None) -> Vectors:
        """`[N, D]` vectors of documents; those of one title are encoded together."""
        prompted = [self.prompts.for_document(document) for document in documents]
        if self._whole_text_is_pooled():
            return self._vectors(self.model.encode(["".join(both) for both in prompted], **self._settings))
        return self._by_prompt(prompted)

    @property
    def _settings(self) -> dict[str, Any]:
        return {"batch_size": self.batch_size, "show_progress_bar": False, "convert_to_numpy": True}

    def _whole_text_is_pooled(self) -> bool:
        return bool(getattr(self.model[1], "include_prompt", True))

    def _by_prompt(self, prompted: Sequence[Prompted]) -> Vectors:
        """Where the prompt is not pooled, the library has to be told where it ends."""
        numbers: dict[str, list[int]] = {}
        for number, (prompt, _) in enumerate(prompted):
            numbers.setdefault(prompt, []).append(number)
        vectors_ND = np.zeros((len(prompted), int(self.model.get_embedding_dimension() or 0)), dtype=np.float32)
        for prompt, chosen in numbers.items():
            texts = [prompted[i].text for i in chosen]
            vectors_ND[chosen] = self._vectors(self.model.encode(texts, prompt=prompt, **self._settings))
        return vectors_ND

    @staticmethod
    def _vectors(vectors_ND: Any) -> Vectors:
        return np.asarray(vectors_ND, dtype=np.float32)


def cosines(first_ND: Vectors, second_ND: Vectors) -> npt.NDArray[np.float64]:
    """`[N]` cosines of equal rows of two matrices, in double precision."""
    first, second = first_ND.astype(np.float64), second_ND.astype(np.float64)
    lengths_N = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.einsum("nd,nd->n", first, second) / lengths_N
