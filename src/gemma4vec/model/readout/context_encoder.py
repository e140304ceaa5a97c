"""A small frozen encoder that embeds a text before the decoder reads it: any sentence-transformers model.

Shapes: N texts, E width of its vectors.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gemma4vec.errors import InputError
from gemma4vec.machine.device import to_device
from gemma4vec.model.bases.foreign_code import refuse_foreign_code
from gemma4vec.model.bases.resolve import resolve_base

# Subfolder of a saved model that contains its small encoder.
SAVED_FOLDER = "context_encoder"


def find_encoder(name: str, saved_with: Path | None = None) -> Path:
    """Folder of the small encoder.

    Args:
        name: `bundled:NAME`, a folder or a hub id.
        saved_with: folder of a saved model, whose own copy comes first.

    Raises:
        InputError: there is no such model, or it is not a sentence-transformers model.
    """
    if saved_with is not None and (saved_with / SAVED_FOLDER / "modules.json").is_file():
        return saved_with / SAVED_FOLDER
    try:
        path = Path(resolve_base(name).path)
    except InputError as error:
        raise InputError(f"model.readout.encoder: {error}") from error
    if not (path / "modules.json").is_file():
        raise InputError(
            f"model.readout.encoder: {name} is not a sentence-transformers model (modules.json is missing); "
            "use bundled:all-minilm-l6-v2 or another one"
        )
    return path


class ContextEncoder(nn.Module):
    """Embeds texts without gradient, up to the encoder's own token limit and without its prompts.

    Raises:
        InputError: sentence-transformers cannot open the folder.
    """

    model: Any

    def __init__(self, path: Path):
        super().__init__()
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        try:
            refuse_foreign_code(path)
            self.model = SentenceTransformer(
                str(path),
                device="cpu",
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"model.readout.encoder: sentence-transformers cannot open {path}: {reason}") from error
        self.model.requires_grad_(False)
        self.model.eval()

    @property
    def dimension(self) -> int:
        """E."""
        return int(self.model.get_embedding_dimension())

    def train(self, mode: bool = True) -> "ContextEncoder":
        """Stay in evaluation mode: with dropout, one text would get different vectors."""
        return super().train(False)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Vectors of texts: `[N, E]`."""
        with torch.no_grad():
            features = self.model.preprocess(list(texts))
            device = next(self.model.parameters()).device
            features = {
                key: to_device(value, device) if isinstance(value, Tensor) else value for key, value in features.items()
            }
            vectors_NE: Tensor = self.model(features)["sentence_embedding"]
        return vectors_NE.detach()

    def save(self, folder: Path) -> None:
        """Write the encoder into a saved model's folder."""
        self.model.save(str(folder / SAVED_FOLDER), create_model_card=False)
