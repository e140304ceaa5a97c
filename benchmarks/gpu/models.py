"""What `gpu` measures on: base folders with random weights, and rows, where no real ones are given."""

import gzip
import json
import random
import shutil
from collections.abc import Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import torch

from benchmarks.shared.record import say
from gemma4vec.errors import InputError
from gemma4vec.files import atomic_folder
from gemma4vec.model.backbone.architectures import text_config
from gemma4vec.model.backbone.meta_model import empty_backbone

# The text part of google/gemma-4-E2B-it: 35 layers, every fifth global, the last 20 share keys and values.
E2B = {
    "vocab_size": 262_144,
    "vocab_size_per_layer_input": 262_144,
    "hidden_size": 1536,
    "intermediate_size": 6144,
    "num_hidden_layers": 35,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "global_head_dim": 512,
    "hidden_size_per_layer_input": 256,
    "num_kv_shared_layers": 20,
    "use_double_wide_mlp": True,
    "sliding_window": 512,
    "max_position_embeddings": 131_072,
    "final_logit_softcapping": 30.0,
    "layer_types": [("sliding_attention", "full_attention")[(i + 1) % 5 == 0] for i in range(35)],
}
# The same model, small, with a layer of each kind that is there: sliding and global, with keys of its own and without.
SMALL_E2B = E2B | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "head_dim": 16,  # the least that flex attention takes on a GPU
    "global_head_dim": 32,
    "hidden_size_per_layer_input": 8,
    "num_kv_shared_layers": 2,
    "sliding_window": 16,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}
# Of a base's own config, what makes it tiny and keeps its kind; layers of both kinds of attention.
TINY = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "sliding_window": 16,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
}
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.gguf", "config.json", "generation_config.json")


def e2b_base(tokenizer_of: Path, folder: Path, device: str) -> Path:
    """A Gemma 4 E2B in shape, with random weights in bf16 made on the device and the tokenizer of another base.

    Gemma 3's tokenizer has as many tokens. With values of a standard deviation of .02 everything stays finite. A folder
    that is there already is one that an earlier part made.
    """
    from transformers import Gemma4TextConfig

    return _random_base(Gemma4TextConfig(**E2B), tokenizer_of, folder, torch.bfloat16, device)


def small_e2b_base(tokenizer_of: Path, folder: Path) -> Path:
    """A Gemma 4 with four small layers and random weights in fp32, and the tokenizer of another base."""
    from transformers import Gemma4TextConfig

    vocabulary = int(text_config(tokenizer_of).vocab_size)
    words = {"vocab_size": vocabulary, "vocab_size_per_layer_input": vocabulary}
    return _random_base(Gemma4TextConfig(**SMALL_E2B | words), tokenizer_of, folder, torch.float32, "cpu")


def tiny_base(like: Path, folder: Path) -> Path:
    """A base of the same kind with three small layers and random weights in fp32."""
    config = text_config(like)
    known = {key: value for key, value in TINY.items() if hasattr(config, key)}
    config = type(config).from_dict(config.to_dict() | known)
    return _random_base(config, like, folder, torch.float32, "cpu")


def _random_base(config: Any, tokenizer_of: Path, folder: Path, dtype: torch.dtype, device: str) -> Path:
    if folder.is_dir():
        return folder
    torch.manual_seed(0)
    backbone = empty_backbone(config, causal=True, dtype=dtype, device=device)
    # Norms keep their ones, but for Gemma 4's queries: with them attention's logits would have a standard deviation of
    # sqrt(head size) and bf16's rounding would decide what a token sees; a trained model's are small.
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.02)
        if config.model_type.startswith("gemma4"):
            for name, parameter in backbone.named_parameters():
                if name.endswith("self_attn.q_norm.weight"):
                    parameter.fill_(parameter.numel() ** -0.5)
    with atomic_folder(folder) as made:
        backbone.save_pretrained(made, dtype)
        skipped = {file.name for pattern in WEIGHTS for file in tokenizer_of.glob(pattern)}
        for file in tokenizer_of.iterdir():
            if file.is_file() and file.name not in skipped:
                shutil.copy(file, made / file.name)
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    say(f"{config.model_type} with random weights: {parameters / 1e9:.2f} billion parameters")
    return folder


def write_rows(file: Path, data: Path | None, count: int, hard_negatives: int) -> Path:
    """Rows for a speed measurement: of `data/train` in turn, or made up; negatives are other rows' positives.

    What a negative says does not matter for speed, only how long it is.
    """
    draw = random.Random(0)
    pairs = list(islice(real_pairs(data) if data else made_up_pairs(draw), count))
    if len(pairs) < hard_negatives + 2:
        raise InputError(f"{data}/train holds {len(pairs)} rows; it needs {hard_negatives + 2} or more")
    with file.open("w", encoding="utf-8") as lines:
        for query, positive in pairs:
            negatives = [draw.choice(pairs)[1] for _ in range(hard_negatives)]
            lines.write(json.dumps({"query": query, "pos": [positive], "neg": negatives}) + "\n")
    return file


def train_files(data: Path) -> list[Path]:
    """The row files of a data folder: `train/*.jsonl`, also with .gz.

    Raises:
        InputError: there are none.
    """
    files = sorted([*data.glob("train/*.jsonl"), *data.glob("train/*.jsonl.gz")])
    if not files:
        raise InputError(f"{data}/train holds no *.jsonl or *.jsonl.gz")
    return files


def real_pairs(data: Path) -> Iterator[tuple[str, str]]:
    """Query and positive of the rows of each file in turn: their lengths are those of real texts."""
    for together in zip_longest(*map(_rows_of, train_files(data))):
        for row in together:
            if row is not None:
                yield _text(row["query"]), _text(row["pos"][0])


def _rows_of(file: Path) -> Iterator[dict[str, Any]]:
    with (gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row.get("query") and row.get("pos"):
                yield row


def _text(found: Any) -> str:
    return str(found["text"] if isinstance(found, dict) else found)


def made_up_pairs(draw: random.Random) -> Iterator[tuple[str, str]]:
    """Random words; lengths are log-normal, as those of real texts nearly are (medians of 8 and 60 words)."""

    def text(median: float) -> str:
        words = max(3, round(draw.lognormvariate(0.0, 0.8) * median))
        return " ".join("".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(min(words, 400)))

    while True:
        yield text(8), text(60)
