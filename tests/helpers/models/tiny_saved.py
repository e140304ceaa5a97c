"""Tiny models of every kind, trained by a random number generator and saved as training saves them."""

from pathlib import Path
from typing import Any

import torch
from tiny_model import write_tiny

from gemma4vec.model.bases.resolve import resolve_base
from gemma4vec.model.encoder.build import build
from gemma4vec.model.save.write_model import save_model
from gemma4vec.recipe.schema import Budget, Lora, Model, Recipe, Stage, source_of

# name -> (family, changes to the recipe's model part)
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "causal-last": ("gemma3", {"attention": "causal", "readout": {"name": "last_token"}, "prompts": "retrieval"}),
    "both-mean": ("gemma3", {"attention": "bidirectional", "readout": {"name": "mean"}, "prompts": "code_retrieval"}),
    "no-prompt-pooled": ("gemma3", {"readout": {"name": "mean", "pool_prompt": False}, "head": {"widths": [6]}}),
    "llama-causal": ("llama", {"attention": "causal", "readout": {"name": "last_token"}, "prompts": "none"}),
    "llama-both": ("llama", {"attention": "bidirectional", "head": {"widths": [9, 7], "bias": True}, "lora": None}),
    "qwen3-both": ("qwen3", {"attention": "bidirectional", "prompts": "none"}),
    "mistral-causal": ("mistral", {"attention": "causal", "readout": {"name": "last_token"}}),
    "gemma3-of-a-whole": ("gemma3_whole", {"attention": "bidirectional"}),
    "gemma4-both": ("gemma4", {"attention": "bidirectional"}),
    "gemma4-causal": ("gemma4", {"attention": "causal", "readout": {"name": "last_token"}, "head": {"widths": [6]}}),
    "gemma4-unified": ("gemma4_unified", {"attention": "bidirectional"}),
    "embedding-gemma": ("embedding_gemma", {"attention": "bidirectional"}),
    "embedding-gemma2": ("embedding_gemma2", {"attention": "bidirectional"}),
    "t5gemma": ("t5gemma", {"attention": "bidirectional"}),
    "t5gemma2": ("t5gemma2", {"attention": "bidirectional"}),
    "own-prompts": ("llama", {"readout": {"name": "last_token"}, "prompts": {"query": "q: ", "document": "d: "}}),
}
KINDS["first"] = ("gemma3", {"readout": "first_token"})
KINDS["weighted"] = ("llama", {"attention": "causal", "readout": {"name": "weighted_mean", "pool_prompt": False}})
# Readouts that sentence-transformers lacks.
OWN_KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "attention": ("gemma3", {"readout": {"name": "attention", "heads": 2, "pool_prompt": False}}),
    "latent": (
        "llama",
        {
            "attention": "causal",
            "readout": {"name": "latent_attention", "latents": 32, "heads": 4, "hidden_size": 16},
            "head": {"widths": [9, 7], "bias": True},
        },
    ),
    "context": ("gemma3", {"attention": "causal", "readout": "contextual_token", "head": {"widths": [24]}}),
    "context-llama": ("llama", {"attention": "bidirectional", "readout": "contextual_token", "prompts": "none"}),
    "layers": ("gemma3", {"readout": "layer_mix"}),
    "layers-llama": ("llama", {"attention": "causal", "readout": {"name": "layer_mix", "pool_prompt": False}}),
    "echo": ("llama", {"attention": "causal", "readout": "echo_delta", "prompts": {"query": "q: ", "document": ""}}),
    "echo-concat": ("gemma3", {"attention": "causal", "readout": {"name": "echo_delta", "join": "concat"}}),
}
MAX_TOKENS = 40


def save_tiny(folder: Path, kind: str) -> Path:
    """A run's `model` folder of this kind below `folder`, and its base beside it."""
    architecture, changes = (KINDS | OWN_KINDS)[kind]
    base = write_tiny(folder / "base", architecture, layers=2)
    if changes.get("readout") == "contextual_token":
        from tiny_context import write_context

        changes = changes | {"readout": {"name": "contextual_token", "encoder": str(write_context(folder / "context"))}}
    model = Model.model_validate(
        {"base": str(base), "lora": Lora(rank=4).model_dump(), "max_tokens": MAX_TOKENS} | changes
    )
    stage = Stage(data=(source_of(name="a", path="a.jsonl"),), budget=Budget(steps=1))
    recipe = Recipe(name="tiny", model=model, stages=(stage,), seed=5)
    fresh = build(model, base, dtype=torch.float32, seed=5)
    generator = torch.Generator().manual_seed(3)
    trained = {
        name: parameter.detach() + 0.1 * torch.randn(parameter.shape, generator=generator)
        for name, parameter in fresh.trainable().items()
    }
    resolved = resolve_base(str(base))
    save_model(folder / "model", recipe, resolved, trained, data={}, name=f"tiny-{kind}")
    return folder / "model"
