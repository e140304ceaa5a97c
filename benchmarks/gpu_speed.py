"""The speed parts of `gpu.py`: training and encoding in bf16, model FLOP utilisation, peak memory, against the peer.

Model FLOPs are what the mathematics needs, whatever was computed: for each real token that stands once (a prompt that
documents share counts once, padding never) two operations a weight of the decoder layers' linear maps, adapters among
them, and 4 * length * heads * head size for attention within its own document (Kaplan et al. 2020, arXiv:2001.08361);
backward the same once more for the gradient of inputs, and of weights where these are trained, which in LoRA only
adapters are. Recomputation (checkpoints, GradCache) counts nothing. Utilisation is their rate over the rate of a large
matrix product measured on the same card in the same run.
"""

import argparse
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import say, shown, summary

from gemma4vec.errors import InputError, WorkError
from gemma4vec.machine.rates import matmul_rate, memory_bandwidth
from gemma4vec.model.backbone import Backbone
from gemma4vec.model.bases import resolve_base
from gemma4vec.model.build import build
from gemma4vec.model.embedder import Embedder
from gemma4vec.model.packing import Layout
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.recipe.schema import Recipe
from gemma4vec.training.estimate_flops import step_flops
from gemma4vec.training.memory import release_memory

# Of the layouts that are tried first, before the fastest meets the peer: row_tokens, tokens_per_forward.
TRIALS = ((256, 8192), (256, 32_768), (512, 16_384))
SMALL_TRIALS = ((128, 512),)


def recipe(base: Path, rows: Path, arguments: argparse.Namespace, batch_rows: int, layout: dict[str, Any]) -> Recipe:
    """LoRA on all linear layers, last token, causal: what both sides can train."""
    import yaml

    tree = {
        "name": "gpu-speed",
        "model": {
            "base": str(base),
            "attention": "causal",
            "readout": {"name": "last_token"},
            "max_tokens": 256,
            "dtype": "bf16",
        },
        "stages": [
            {
                "data": [{"name": "rows", "source": "jsonl", "path": str(rows)}],
                "task": {"hard_negatives": arguments.hard_negatives, "terms": [{"kind": "nce", "hardness": 0}]},
                "batch": {"rows": batch_rows},
                "layout": {"kind": "packed", "compile": not arguments.smoke} | layout,
                "budget": {"steps": 1000},
            }
        ],
    }
    return parse_recipe(yaml.safe_dump(tree), "gpu_speed.py")


def rates(device: str, smoke: bool) -> dict[str, float]:
    """What the card itself does: bf16 products in TFLOP/s, copies in GB/s."""
    size = 256 if smoke else 8192
    return {
        "matmul_tflops": matmul_rate(torch.bfloat16, size, 0.5, device) / 1e3,
        "memory_gb_per_second": memory_bandwidth(0.2, device),
    }


def training(
    base: Path, rows: Path, arguments: argparse.Namespace, batch_rows: int, folder: Path, found: dict[str, Any]
) -> None:
    """Put into `found`: ours alone in a few layouts, the fastest in turn with sentence-transformers' trainer."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    machine = rates(device, arguments.smoke)
    trials: list[dict[str, Any]] = []
    found |= {"device_rates": machine, "alone": trials, "batch_rows": batch_rows}
    for row_tokens, tokens_per_forward in SMALL_TRIALS if arguments.smoke else TRIALS:
        layout = {"row_tokens": row_tokens, "tokens_per_forward": tokens_per_forward}
        try:
            one = alone(recipe(base, rows, arguments, batch_rows, layout), arguments, folder, machine)
        except torch.OutOfMemoryError:
            one = {"out_of_memory": True}
        release_memory()
        say(f"  rows of {row_tokens}, {tokens_per_forward:,} a forward: {one}")
        trials.append({**layout, **one})
    able = [trial for trial in trials if "tokens_per_second" in trial]
    if not able:
        raise InputError(f"no layout fits this card's memory at {batch_rows} rows; lower --rows")
    best = max(able, key=lambda trial: float(trial["tokens_per_second"]))
    found["fastest"] = best
    layout = {key: best[key] for key in ("row_tokens", "tokens_per_forward")}
    try:
        found |= against_peer(recipe(base, rows, arguments, batch_rows, layout), arguments, folder)
    except Exception as error:  # what we measured alone is worth writing whatever becomes of the peer
        found["peer_failed"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        say(f"  against the peer: {found['peer_failed']}")


def alone(chosen: Recipe, arguments: argparse.Namespace, folder: Path, machine: dict[str, float]) -> dict[str, Any]:
    """Our trainer with the card to itself: speed, utilisation, peak memory."""
    from our_trainer import build_ours

    from gemma4vec.data.sources import load_sources

    base = resolve_base(chosen.model.base, notice=say)
    loaded = load_sources(chosen.stages[0].data, say).rows
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    total = arguments.warm_up + arguments.repeats * arguments.steps
    ours = build_ours(chosen, base, loaded, folder, total)
    counted = [
        flops_of(ours.built.encoder.backbone, batch.layouts) for batch in islice(ours.stage.task.batches(0), total)
    ]
    ours.prepare()
    ours.train(arguments.warm_up)
    speeds, flops = [], []
    for block in range(arguments.repeats):
        seconds = ours.train(arguments.steps)
        here = slice(arguments.warm_up + block * arguments.steps, arguments.warm_up + (block + 1) * arguments.steps)
        speeds.append(sum(ours.tokens[here]) / seconds)
        flops.append(sum(counted[here]) / seconds / 1e12)
    return {
        "tokens_per_second": float(np.median(speeds)),
        "model_tflops": float(np.median(flops)),
        "model_flop_utilisation": float(np.median(flops)) / machine["matmul_tflops"],
        "peak_memory_gb": peak_gb(),
        "padding_share": float(np.mean(ours.padding_shares)),
        "compiled": ours.built.encoder.backbone.compiled,
        "speeds": summary(speeds),
    }


def flops_of(backbone: Backbone, layouts: list[Layout]) -> float:
    """Model FLOPs of a training step on these layouts (see the module)."""
    lengths = torch.cat([layout.lengths_N for layout in layouts]).double()
    columns = float((lengths**2).sum() / lengths.sum())  # what a token's own document is long, on average
    cells = sum(layout.computed_tokens for layout in layouts)
    return sum(step_flops(backbone, cells, columns, 0).values())


def peak_gb() -> float:
    """Most memory that was allocated on the card, in GB; 0 without one."""
    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0


def against_peer(chosen: Recipe, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """`training_speed.py`'s measurement: same batches, same adapters, blocks in turn."""
    from training_speed import measure

    settings = argparse.Namespace(
        warm_up=arguments.warm_up,
        steps=arguments.steps,
        repeats=arguments.repeats,
        device=None,
        rows=True,
        peer_precision="auto",
        peer_compile=False,
    )
    found = measure(settings, chosen, folder / "peer")
    say(f"  ours {shown(found['ours'])}, theirs {shown(found['theirs'])} tokens/s; ratio {shown(found['ratio'], 2)}")
    return found


def encoding(base: Path, rows: Path, arguments: argparse.Namespace, folder: Path, found: dict[str, Any]) -> None:
    """Put into `found`: tokens a second, ours in a few sizes of micro-batch, `SentenceTransformer.encode` in a few."""
    import json

    from encoding_speed import time_in_turn
    from plain_model import cosines

    from gemma4vec.model.prompts import Document

    device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = recipe(base, rows, arguments, 8, {})
    model = chosen.model.model_copy(update={"lora": None})
    built = build(model, base, dtype=torch.bfloat16, device=device)
    built.encoder.eval()
    ours = Embedder(built, name="base", fingerprint="base", max_tokens=model.max_tokens)
    with rows.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["pos"][0] for line in islice(lines, arguments.documents)]
    prompted = [ours.prompts.for_document(Document(text)) for text in texts]
    tokens = built.read(prompted, model.max_tokens)
    peer = peer_encoder(chosen, base, built.tokeniser.tokenizer, folder, device)
    joined = ["".join(one) for one in prompted]
    real = sum(one.length for one in tokens)
    theirs = int(peer.preprocess(joined)["attention_mask"].sum())
    if theirs != real:
        raise WorkError(f"the two read other tokens of the same documents: {real:,} and {theirs:,}")
    forward = 2.0 * sum(
        module.in_features * module.out_features
        for layer in built.encoder.backbone.layers
        for module in layer.modules()
        if isinstance(module, torch.nn.Linear)
    )

    def our_side(cells: int) -> Any:
        def encode() -> Any:
            ours.tokens_per_forward = cells
            return ours.encode_document(texts)

        return encode

    def their_side(size: int) -> Any:
        return lambda: peer.encode(joined, batch_size=size, show_progress_bar=False, convert_to_numpy=True)

    sides = {f"ours_{cells}": our_side(cells) for cells in ((512,) if arguments.smoke else (2048, 16_384, 65_536))}
    sides |= {f"theirs_{size}": their_side(size) for size in ((8,) if arguments.smoke else (32, 128, 512))}
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    first, vectors, seconds = time_in_turn(sides, arguments.repeats)
    speeds = {name: summary([real / one for one in taken]) for name, taken in seconds.items()}
    best = {
        side: max((name for name in sides if name.startswith(side)), key=lambda name: float(speeds[name]["median"]))
        for side in ("ours", "theirs")
    }
    machine = rates(device, arguments.smoke)
    parity_N = cosines(vectors[best["ours"]], vectors[best["theirs"]])
    ratio = summary([b / a for a, b in zip(seconds[best["ours"]], seconds[best["theirs"]], strict=True)])
    say(f"  ours {shown(speeds[best['ours']])}, theirs {shown(speeds[best['theirs']])}; ratio {shown(ratio, 2)}")
    found |= {
        "documents": len(texts),
        "tokens": real,
        "device_rates": machine,
        "fastest": best,
        "ratio": ratio,
        "speeds": speeds,
        "first_encoding_seconds": first,
        "model_flop_utilisation": speeds[best["ours"]]["median"] * forward / machine["matmul_tflops"] / 1e12,
        "peak_memory_gb_both": peak_gb(),
        "compiled": built.encoder.backbone.compiled,
        "cosine": {"least": float(parity_N.min()), "mean": float(parity_N.mean())},
    }


def peer_encoder(chosen: Recipe, base: Path, tokenizer: Any, folder: Path, device: str) -> Any:
    """The same base in sentence-transformers: its own transformer, pooling and normalisation, our tokenizer."""
    import copy

    from peer_trainer import _with_attention
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    transformer = Transformer(
        str(_with_attention(base, chosen, folder)),
        model_kwargs={"dtype": torch.bfloat16, "attn_implementation": "sdpa"},
        max_seq_length=chosen.model.max_tokens,
    )
    transformer.processor = copy.deepcopy(tokenizer)
    transformer.processor.model_max_length = chosen.model.max_tokens  # the limit given above was the first tokenizer's
    width = transformer.get_embedding_dimension()
    return SentenceTransformer(
        modules=[transformer, Pooling(width, pooling_mode="lasttoken"), Normalize()], device=device
    )
