"""Readouts that sentence-transformers lacks, as its first module: backbone and readout in one.

`SentenceTransformer(folder, trust_remote_code=True)` imports this class by its name, which stands in the folder's
modules.json, where gemma4vec is installed. No code is taken from the folder; that library asks for the switch before it
imports any class that is not its own. Heads and unit length behind it are the library's own modules.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import save_file
from sentence_transformers.base.modules import InputModule

from gemma4vec.files import write_json
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.model.packing.packed_batch import padded
from gemma4vec.model.readout.contextual_token import ContextualToken
from gemma4vec.model.save.read_model import READOUT_FILE, SETTINGS_FILE, model_of, open_built, read_settings
from gemma4vec.model.tokenize.prompt_boundary import save_tokenizer
from gemma4vec.text.prompts import Prompted


class Gemma4VecEncoder(InputModule):
    """Texts to pooled vectors, in padded layouts.

    Args:
        built: the encoder; a head that it has is not used here.
        settings: what `gemma4vec.json` says.
        max_seq_length: longest text in tokens, prompt and special tokens included (of one copy, where a readout reads
            it twice).
    """

    save_in_root = True

    def __init__(self, built: EmbeddingModel, settings: dict[str, Any], max_seq_length: int):
        super().__init__()
        built.encoder.head = None
        self.encoder = built.encoder
        self.settings = settings
        self.max_seq_length = max_seq_length
        self.tokenizer = built.tokeniser.tokenizer
        self._built = built

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: Any) -> dict[str, Any]:
        """Tokens of texts, as the readout prepares them."""
        texts = [Prompted(prompt or "", str(text)) for text in inputs]
        tokens = self._built.read(texts, self.max_seq_length)
        longest = max(text.length for text in tokens)
        (layout,) = padded(tokens, longest * len(tokens), self._built.tokeniser.padding_id)
        return {"input_ids": layout.input_ids_RC, "attention_mask": (layout.segments_RC >= 0).long(), "layout": layout}

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Adds `sentence_embedding` `[N, dimension]`."""
        features["sentence_embedding"] = self.encoder.pooled([features["layout"]])
        return features

    def get_embedding_dimension(self) -> int:
        """Length of the pooled vectors."""
        return self.encoder.readout.dimension

    def save(self, output_path: str, *_: Any, safe_serialization: bool = True, **__: Any) -> None:
        """Write backbone, tokenizer, readout and settings; always as safetensors."""
        folder = Path(output_path)
        readout = self.encoder.readout
        self.encoder.backbone.save_pretrained(folder, self.encoder.backbone.dtype)
        save_tokenizer(self._built.tokeniser.tokenizer, folder, as_it_is=not readout.pool_prompt)
        trained = {name: value.detach().cpu().contiguous() for name, value in readout.trained().items()}
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
        """Open it; `model_kwargs={"dtype": ...}` is obeyed, else the type in which it was saved."""
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
        return cls(open_built(folder, model, dtype=dtype, device="cpu"), saved, model.max_tokens)


def _dtype(asked: Any, saved: dict[str, Any]) -> torch.dtype:
    if isinstance(asked, torch.dtype):
        return asked
    name = str(asked if asked not in (None, "auto") else saved.get("dtype", "float32"))
    found = getattr(torch, name.removeprefix("torch."))
    assert isinstance(found, torch.dtype)
    return found
