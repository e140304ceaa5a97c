"""A sentence-transformers module with backbone and readout, for readouts that the library lacks.

`SentenceTransformer(folder, trust_remote_code=True)` imports this class by the name in the folder's modules.json, so
gemma4vec must be installed. No code comes from the folder; the library requires the switch before it imports any class
that is not its own. Head and normalization are the library's own modules.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import save_file
from sentence_transformers.base.modules import InputModule

from gemma4vec.files import write_json
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.model.packing.packed_batch import pad
from gemma4vec.model.readout.contextual_token import ContextualToken
from gemma4vec.model.save.read_model import READOUT_FILE, SETTINGS_FILE, model_of, open_saved_model, read_settings
from gemma4vec.model.tokenize.prompt_boundary import save_tokenizer
from gemma4vec.text.prompts import Prompted


class Gemma4VecEncoder(InputModule):
    """Maps texts to pooled vectors, in padded layouts.

    Args:
        embedding_model: the encoder; its head is removed, because the library applies it.
        settings: contents of `gemma4vec.json`.
        max_seq_length: token limit of a text with prompt and special tokens; of one copy, if the readout reads it
            twice.
    """

    # sentence-transformers writes this path into modules.json; unlike that of this file, it never changes.
    __module__ = "gemma4vec.model.sentence_transformers_module"
    save_in_root = True

    def __init__(self, embedding_model: EmbeddingModel, settings: dict[str, Any], max_seq_length: int):
        super().__init__()
        embedding_model.encoder.head = None
        self.encoder = embedding_model.encoder
        self.settings = settings
        self.max_seq_length = max_seq_length
        self.tokenizer = embedding_model.tokenizer.hf_tokenizer
        self._embedding_model = embedding_model

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: Any) -> dict[str, Any]:
        """Tokens of texts, as the readout prepares them."""
        texts = [Prompted(prompt or "", str(text)) for text in inputs]
        tokens = self._embedding_model.read(texts, self.max_seq_length)
        longest = max(text.length for text in tokens)
        (layout,) = pad(tokens, longest * len(tokens), self._embedding_model.tokenizer.padding_id)
        return {"input_ids": layout.input_ids_RC, "attention_mask": (layout.segments_RC >= 0).long(), "layout": layout}

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add `sentence_embedding`, `[N, dimension]`."""
        features["sentence_embedding"] = self.encoder.pool([features["layout"]])
        return features

    def get_embedding_dimension(self) -> int:
        """Length of the pooled vectors."""
        return self.encoder.readout.dimension

    def save(self, output_path: str, *_: Any, safe_serialization: bool = True, **__: Any) -> None:
        """Write backbone, tokenizer, readout and settings; always as safetensors."""
        folder = Path(output_path)
        readout = self.encoder.readout
        self.encoder.backbone.save_pretrained(folder, self.encoder.backbone.dtype)
        save_tokenizer(self._embedding_model.tokenizer.hf_tokenizer, folder, keep_normalizer=not readout.pool_prompt)
        trained = {name: value.detach().cpu().contiguous() for name, value in readout.trainable().items()}
        if trained:
            save_file(trained, folder / READOUT_FILE)
        if isinstance(readout, ContextualToken):
            readout.context.save(folder)
        write_json(folder / SETTINGS_FILE, self.settings)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        init_defaults: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Open a saved module, in the dtype of `model_kwargs={"dtype": ...}` or else the one that it was saved in."""
        folder = Path(model_name_or_path)
        if not folder.is_dir():
            found = cls.load_dir_path(
                model_name_or_path,
                subfolder,
                token=token,
                cache_folder=cache_folder,
                revision=revision,
                local_files_only=local_files_only,
            )
            folder = Path(str(found))
        saved = read_settings(folder)
        model = model_of(saved)
        asked = kwargs.get("model_kwargs") or {}
        dtype = _dtype(asked.get("dtype") or asked.get("torch_dtype"), saved)
        return cls(open_saved_model(folder, model, dtype=dtype, device="cpu"), saved, model.max_tokens)


def _dtype(asked: Any, saved: dict[str, Any]) -> torch.dtype:
    if isinstance(asked, torch.dtype):
        return asked
    name = str(asked if asked not in (None, "auto") else saved.get("dtype", "float32"))
    found = getattr(torch, name.removeprefix("torch."))
    assert isinstance(found, torch.dtype)
    return found
