"""The speed parts of `gpu`: training and encoding in bf16, model FLOP utilisation, peak memory, against the peer.

Model FLOPs are what `gemma4vec bench` counts (`training.engine.flops`): what the documents need in the
layout that was computed, a prompt that they share once, padding and recomputation never. Utilisation is their rate over
the rate of a large matrix product measured on the same card in the same run.

Every number is written as soon as it is measured. The model is loaded and compiled once: layouts, and what meets the
peer, take turns on it.
"""

import argparse
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from benchmarks.gpu.found import Found, said_of
from benchmarks.shared.record import say, shown, summary
from gemma4vec.errors import WorkError
from gemma4vec.machine.device import choose_device
from gemma4vec.machine.rates import matmul_rate, memory_bandwidth
from gemma4vec.model.backbone.attention_probe import check
from gemma4vec.model.backbone.compilation import choose_compile, failed_to_compile, run_compiled, use_compile_cache
from gemma4vec.model.bases.resolve import resolve_base
from gemma4vec.model.encoder.build import EmbeddingModel, build
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.packing.packed_batch import PackedBatch
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.recipe.schema import Recipe
from gemma4vec.training.bench.time_split import split
from gemma4vec.training.engine.flops import document_flops
from gemma4vec.training.engine.process_memory import release_memory

if TYPE_CHECKING:
    from benchmarks.shared.our_trainer import Ours

T = TypeVar("T")
# Of the layouts that are tried first, before the fastest meets the peer: row_tokens, tokens_per_forward.
TRIALS = ((256, 8192), (256, 32_768), (512, 16_384))
LARGE_TRIALS = ((256, 16_384),)  # its batch of 16 rows is one micro-batch anyway
SMALL_TRIALS = ((128, 512),)
LEAST_ROWS = 4  # in a batch, where memory runs out
PEER_COMPILE_SECONDS = 200  # that must be left to try the peer compiled
PEER_COMPILE_WARM_UP = 6  # its batches have new shapes, and kernels are made for some of them
OUR_CELLS, LARGE_CELLS = (2048, 16_384, 65_536), (16_384, 65_536)  # of a micro-batch in encoding
THEIR_BATCHES, LARGE_BATCHES = (32, 128, 512), (32, 128)
_ROW = 256  # columns of the shape in which layers are compiled for encoding


def recipe(
    base: Path, rows: Path, arguments: argparse.Namespace, batch_rows: int, layout: dict[str, Any], *, large: bool
) -> Recipe:
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
                # Without a compiler or Python's headers the layers run uncompiled, and the result says so.
                "layout": {"kind": "packed", "compile": compile_or_not(arguments, large)} | layout,
                "budget": {"steps": 1000},
            }
        ],
    }
    return parse_recipe(yaml.safe_dump(tree), "gpu_speed.py")


def compile_or_not(arguments: argparse.Namespace, large: bool) -> str | bool:
    """`layout.compile`: of the two small models of a smoke test one is compiled."""
    return False if arguments.eager or (arguments.smoke and not large) else "auto"


def rates(device: str, smoke: bool) -> dict[str, float]:
    """What the card itself does: bf16 products in TFLOP/s, copies in GB/s."""
    size = 256 if smoke else 8192
    return {
        "matmul_tflops": matmul_rate(torch.bfloat16, size, 0.5, device) / 1e3,
        "memory_gb_per_second": memory_bandwidth(0.2, device),
    }


def training(base: Path, rows: Path, arguments: argparse.Namespace, folder: Path, found: Found, *, large: bool) -> None:
    """Put into `found`: ours alone in a few layouts, the fastest in turn with sentence-transformers' trainer."""
    machine = rates(choose_device().name, arguments.smoke)
    trials: list[dict[str, Any]] = []
    no_room: dict[str, list[int]] = {"alone": [], "beside the peer": []}
    found.keep(device_rates=machine, alone=trials, batch_rows_without_room=no_room)

    def chosen(batch_rows: int, layout: dict[str, Any]) -> Recipe:
        return recipe(base, rows, arguments, batch_rows, layout, large=large)

    def in_all_layouts(batch_rows: int) -> "tuple[int, Ours]":
        ours = None
        for row_tokens, tokens_per_forward in SMALL_TRIALS if arguments.smoke else LARGE_TRIALS if large else TRIALS:
            layout = {"row_tokens": row_tokens, "tokens_per_forward": tokens_per_forward}
            if ours is not None and not ours.built.encoder.backbone.compiled:
                layout["compile"] = False  # it did not work the first time
            one: dict[str, Any] = {"out_of_memory": True}
            try:
                one, ours = alone(chosen(batch_rows, layout), arguments, folder, machine, ours)
            except torch.OutOfMemoryError:
                if ours is None:
                    raise
            say(f"  rows of {row_tokens}, {tokens_per_forward:,} a forward: {one}")
            trials.append({"batch_rows": batch_rows, **layout, **one})
            found.keep()
            if "out_of_memory" not in one:
                trials[-1]["time"] = time_split(ours)
                found.keep()
        assert ours is not None
        return batch_rows, ours

    batch_rows, ours = with_fewer_rows(arguments.rows[large], in_all_layouts, no_room["alone"])
    able = [trial for trial in trials if trial["batch_rows"] == batch_rows and "tokens_per_second" in trial]
    best = max(able, key=lambda trial: float(trial["tokens_per_second"]))
    found.keep(fastest=best)
    layout = {key: best[key] for key in ("row_tokens", "tokens_per_forward", "compile") if key in best}

    def beside_peer(batch_rows: int) -> None:
        against_peer(chosen(batch_rows, layout), arguments, folder, ours, found)
        found.keep(batch_rows=batch_rows)

    try:
        with_fewer_rows(batch_rows, beside_peer, no_room["beside the peer"])
        peer_compiled(chosen(found["batch_rows"], layout), arguments, folder, ours, found)
    except Exception as error:  # what we measured alone is worth writing whatever becomes of the peer
        found.keep(peer_failed=said_of(error))
        say(f"  against the peer: {found['peer_failed']}")


def with_fewer_rows(batch_rows: int, work: Callable[[int], T], no_room: list[int]) -> T:
    """What `work` gives with so many rows in a batch, or with half as many where memory runs out, and so on.

    `no_room` gets the numbers that did not fit.

    Raises:
        WorkError: not even `LEAST_ROWS` fit.
    """
    while True:
        try:
            return work(batch_rows)
        except torch.OutOfMemoryError:
            no_room.append(batch_rows)
        release_memory()  # not inside of the handler: the error holds frames, and these hold the tensors
        say(f"  {batch_rows} rows in a batch do not fit into this card's memory")
        if batch_rows // 2 < LEAST_ROWS:
            raise WorkError(
                f"{batch_rows} rows in a batch do not fit into this card's memory, nor is there room for less"
            )
        batch_rows //= 2


def alone(
    chosen: Recipe, arguments: argparse.Namespace, folder: Path, machine: dict[str, float], before: "Ours | None"
) -> "tuple[dict[str, Any], Ours]":
    """Our trainer with the card to itself: speed, utilisation, peak memory; one more step is left to profile."""
    from benchmarks.shared.our_trainer import build_ours
    from gemma4vec.data.loading.load_rows import load_sources

    base = resolve_base(chosen.model.base)
    loaded = load_sources(chosen.stages[0].data).rows
    start_peak()
    total = arguments.warm_up + arguments.repeats * arguments.steps
    ours = build_ours(chosen, base, loaded, folder, total + 1, before)
    started = time.perf_counter()
    ours.prepare()
    prepared = time.perf_counter() - started
    drawn = islice(ours.first_batches(), total)
    counted = [document_flops(ours.built, batch.layouts).total for batch in drawn]
    ours.train(arguments.warm_up)
    speeds, flops = [], []
    for block in range(arguments.repeats):
        seconds = ours.train(arguments.steps)
        here = slice(arguments.warm_up + block * arguments.steps, arguments.warm_up + (block + 1) * arguments.steps)
        speeds.append(sum(ours.tokens[here]) / seconds)
        flops.append(sum(counted[here]) / seconds / 1e12)
    peak = peak_gb()
    return {
        "tokens_per_second": float(np.median(speeds)),
        "model_tflops": float(np.median(flops)),
        "model_flop_utilisation": float(np.median(flops)) / machine["matmul_tflops"],
        "peak_memory_gb": peak,
        "padding_share": float(np.mean(ours.padding_shares)),
        "compiled": ours.built.encoder.backbone.compiled,
        "prepared": ours.prepared,
        "prepare_seconds": prepared,
        "waited_for_batches_seconds": ours.waited[1:],
        "speeds": summary(speeds),
    }, ours


def time_split(ours: "Ours") -> dict[str, Any]:
    """Where the time of a step goes, or why the profiler does not say."""
    try:
        return dict(split(lambda: ours.train(1)))
    except Exception as error:  # a machine may forbid it; the speed is known all the same
        return {"error": said_of(error)}


def start_peak() -> None:
    """Begin to watch the card's memory anew."""
    release_memory()
    if choose_device().name == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_gb() -> float:
    """Most memory that was allocated on the card, in GB; 0 without one."""
    return torch.cuda.max_memory_allocated() / 1e9 if choose_device().name == "cuda" else 0.0


def against_peer(
    chosen: Recipe, arguments: argparse.Namespace, folder: Path, ours: "Ours", found: Found, **settings: Any
) -> None:
    """`speed/training_speed.py`'s measurement: same batches, same adapters, blocks in turn.

    With `settings` of the peer the outcome stands as `found["with_compiled_peer"]`, else in `found` itself.
    """
    from benchmarks.speed.training_speed import measure

    release_memory()
    usual = {"warm_up": arguments.warm_up, "peer_precision": "auto", "peer_compile": False}
    rest = {"steps": arguments.steps, "repeats": arguments.repeats, "device": None, "rows": True}
    measured = measure(argparse.Namespace(**{**rest, **usual, **settings}), chosen, folder / "peer", ours)
    del measured["recipe"]  # paths of this machine; what it says of the model and the batch stands elsewhere
    say(f"  ours {shown(measured['ours'])}, theirs {shown(measured['theirs'])}; ratio {shown(measured['ratio'], 2)}")
    found.keep(**({"with_compiled_peer": measured} if settings else measured))


def peer_compiled(chosen: Recipe, arguments: argparse.Namespace, folder: Path, ours: "Ours", found: Found) -> None:
    """The same once more with `torch_compile=True` for the peer, where that can be; the better setting counts."""
    left = found.seconds_left()
    choice = choose_compile("auto", steps=None, minutes=None)
    reason = None
    if arguments.smoke:
        reason = "a smoke test"
    elif not choice.on:
        reason = choice.reason
    elif left < PEER_COMPILE_SECONDS:
        reason = f"{left:.0f} s were left of the part's limit"
    if reason is not None:
        found.keep(peer_compiled={"tried": False, "reason": reason}, ratio_to_fastest_peer=found["ratio"])
        return
    found.keep(peer_compiled={"tried": True, "finished": False}, ratio_to_fastest_peer=found["ratio"])
    settings = {"peer_compile": True, "warm_up": PEER_COMPILE_WARM_UP, "peer_precision": found["peer"]["precision"]}
    try:
        against_peer(chosen, arguments, folder, ours, found, **settings)
    except Exception as error:  # the peer runs as delivered then
        reason = said_of(error)
        found.keep(peer_compiled={"tried": True, "finished": False, "error": reason})
        return
    ratios = [found["ratio"], found["with_compiled_peer"]["ratio"]]
    found.keep(
        peer_compiled={"tried": True, "finished": True},
        ratio_to_fastest_peer=min(ratios, key=lambda ratio: float(ratio["median"])),
    )


def encoding(base: Path, rows: Path, arguments: argparse.Namespace, folder: Path, found: Found, *, large: bool) -> None:
    """Put into `found`: tokens a second, ours in a few sizes of micro-batch, `SentenceTransformer.encode` in a few."""
    import json

    from benchmarks.shared.plain_model import cosines
    from benchmarks.speed.encoding_speed import time_in_turn
    from gemma4vec.text.prompts import Document

    device = choose_device().name
    machine = rates(device, arguments.smoke)
    chosen = recipe(base, rows, arguments, 8, {}, large=large)
    model = chosen.model.model_copy(update={"lora": None})
    built = build(model, base, dtype=torch.bfloat16, device=device)
    built.encoder.eval()
    ours = Embedder(built, name="base", fingerprint="base", max_tokens=model.max_tokens)
    ours.compiles_from = 0  # the rate of a long job is asked for, whatever so few documents would pay
    with rows.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["pos"][0] for line in islice(lines, arguments.documents[large])]
    prompted = [ours.prompts.for_document(Document(text)) for text in texts]
    tokens = built.read(prompted, model.max_tokens)
    peer = peer_encoder(chosen, base, built.tokenizer.hf_tokenizer, folder, device)
    joined = ["".join(one) for one in prompted]
    real = sum(one.length for one in tokens)
    theirs = int(peer.preprocess(joined)["attention_mask"].sum())
    if theirs != real:
        raise WorkError(f"the two read other tokens of the same documents: {real:,} and {theirs:,}")
    found.keep(documents=len(texts), tokens=real, device_rates=machine)
    if not arguments.smoke:
        found.keep(compilation=compiled_for_encoding(built))
    needed: dict[str, float] = {}

    def our_side(name: str, cells: int) -> Any:
        def encode() -> Any:
            ours.tokens_per_forward = cells
            if name in needed:
                return ours.encode_document(texts)
            seen: list[PackedBatch] = []  # in the first encoding, which is not timed
            watched = built.encoder.register_forward_pre_hook(lambda _, given: seen.extend(given[0]))
            try:
                return ours.encode_document(texts)
            finally:
                watched.remove()
                needed[name] = document_flops(built, seen).forward

        return encode

    def their_side(size: int) -> Any:
        return lambda: peer.encode(joined, batch_size=size, show_progress_bar=False, convert_to_numpy=True)

    cells = (512,) if arguments.smoke else LARGE_CELLS if large else OUR_CELLS
    sizes = (8,) if arguments.smoke else LARGE_BATCHES if large else THEIR_BATCHES
    sides = {f"ours_{size}": our_side(f"ours_{size}", size) for size in cells}
    sides |= {f"theirs_{size}": their_side(size) for size in sizes}
    start_peak()

    def round_done(first: dict[str, float], vectors: dict[str, Any], seconds: dict[str, list[float]]) -> None:
        found.keep(
            first_encoding_seconds=first, peak_memory_gb_both=peak_gb(), compiled=built.encoder.backbone.compiled
        )
        if seconds[next(iter(sides))]:
            found.keep(**compared(seconds, real, needed, machine["matmul_tflops"]))
            parity_N = cosines(vectors[found["fastest"]["ours"]], vectors[found["fastest"]["theirs"]])
            found.keep(cosine={"least": float(parity_N.min()), "mean": float(parity_N.mean())})

    time_in_turn(sides, arguments.repeats, round_done)
    best = found["fastest"]
    shown_speeds = [shown(found["speeds"][best[side]]) for side in ("ours", "theirs")]
    say(f"  ours {shown_speeds[0]}, theirs {shown_speeds[1]}; ratio {shown(found['ratio'], 2)}")


def compared(
    seconds: dict[str, list[float]], real: int, needed: dict[str, float], matmul_tflops: float
) -> dict[str, Any]:
    """What the rounds so far say: speeds, the fastest of either, their ratio round by round, and our utilisation."""
    speeds = {name: summary([real / one for one in taken]) for name, taken in seconds.items()}
    best = {
        side: max((name for name in seconds if name.startswith(side)), key=lambda name: float(speeds[name]["median"]))
        for side in ("ours", "theirs")
    }
    utilisation = {
        name: needed[name] / float(np.median(seconds[name])) / matmul_tflops / 1e12
        for name in seconds
        if name in needed
    }
    return {
        "fastest": best,
        "ratio": summary([b / a for a, b in zip(seconds[best["ours"]], seconds[best["theirs"]], strict=True)]),
        "speeds": speeds,
        "model_flop_utilisation": utilisation[best["ours"]],
        "model_flop_utilisation_of": utilisation,
    }


def compiled_for_encoding(built: EmbeddingModel) -> dict[str, Any]:
    """Compile the layers as `Embedder` does for a large job, however small this one is; how that went."""
    from torch._dynamo.exc import TorchDynamoException

    choice = choose_compile("auto", steps=None, minutes=None)
    backbone, started = built.encoder.backbone, time.perf_counter()
    if choice.on:
        use_compile_cache()
        try:
            with torch.inference_mode():
                run_compiled(backbone, lambda: check(backbone, OUR_CELLS[1] // _ROW, _ROW))
        except TorchDynamoException as error:
            choice = failed_to_compile(error)
    return {"on": choice.on, "reason": choice.reason, "seconds": time.perf_counter() - started}


def peer_encoder(chosen: Recipe, base: Path, tokenizer: Any, folder: Path, device: str) -> Any:
    """The same base in sentence-transformers: its own transformer, pooling and normalisation, our tokenizer."""
    import copy

    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    from benchmarks.shared.peer_trainer import _with_attention

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
