"""A folder in sentence-transformers, with the prompts of its own config."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gemma4vec.export.runtimes.job import RoleText, Vectors
from gemma4vec.model.bases.foreign_code import has_our_module


class SentenceTransformers:
    """Runs a sentence-transformers folder in fp32 on the CPU. Each call is one batch."""

    def __init__(self, folder: Path, threads: int):
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        self._model = SentenceTransformer(
            str(folder),
            device="cpu",
            local_files_only=True,
            trust_remote_code=has_our_module(folder),  # which the library calls foreign
            model_kwargs={"dtype": torch.float32},
        )

    @property
    def version(self) -> str:
        """Version of the library."""
        from importlib.metadata import version

        return f"sentence-transformers {version('sentence-transformers')}"

    def encode(self, texts: Sequence[RoleText]) -> Vectors:
        """Vectors `[N, D]`; queries and documents by the two methods that people call."""
        vectors: dict[int, Vectors] = {}
        for role, encode in (("query", self._model.encode_query), ("document", self._model.encode_document)):
            places = [i for i, text in enumerate(texts) if text.role == role]
            if places:
                given = [texts[i].text for i in places]
                found = encode(given, batch_size=len(given), convert_to_numpy=True, show_progress_bar=False)
                vectors |= dict(zip(places, np.asarray(found, dtype=np.float32), strict=True))
        return np.stack([vectors[i] for i in range(len(texts))])

    def tokens(self, text: RoleText) -> list[int] | None:
        """Token ids that the first module reads."""
        first: Any = self._model[0]
        features = first.preprocess([text.text], prompt=self._model.prompts.get(text.role) or None)
        real = features["attention_mask"][0].bool()
        return [int(token) for token in features["input_ids"][0][real]]
