"""Trained real tokens per second: gemma4vec against the sentence-transformers trainer.

    python -m benchmarks.speed.training_speed --hard-negatives 0

One process, blocks of steps in turn: ours, theirs, ours, theirs. In one process, because the two then meet the same
neighbours, clock rates and memory; the peer's trainer stands still while our block runs inside its callback, and the
other way round. Both train the same adapters on the same batches, tokenising included. The first steps (compilation,
warm-up) are reported apart. The program fails where the two do not read the same tokens, do not train the same
parameters or differ in the loss of the first batches: then it would compare two different things.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.shared.record import RESULTS, as_program, say, shown, summary, write_result
from gemma4vec.data.loading.load_rows import load_sources
from gemma4vec.data.mining.bm25_negatives import mine_bm25
from gemma4vec.data.rows.rows import Row
from gemma4vec.errors import InputError, WorkError
from gemma4vec.model.bases.resolve import resolve_base
from gemma4vec.recipe.load import load_recipe
from gemma4vec.recipe.schema import Recipe
from gemma4vec.retrieval.tokenize import tokenize_code, tokenize_text

if TYPE_CHECKING:
    from benchmarks.shared.our_trainer import Ours
    from benchmarks.shared.peer_trainer import Peer, Precision

QUICKSTART = Path(__file__).parents[2] / "src/gemma4vec/pipeline/quickstart.yaml"
PLAIN = "stages.0.task.terms=[{kind: nce, hardness: 0}]"  # the peer's loss
SEARCHED = 64  # batches in which those without duplicates are looked for
COMPARED = 8  # of these, the most whose losses are compared


def main() -> None:
    arguments = parse_arguments()
    recipe = recipe_of(arguments)
    with tempfile.TemporaryDirectory(prefix="training-speed-") as folder:
        measured = measure(arguments, recipe, Path(folder))
    report(measured)
    write_result(f"training_speed-{arguments.hard_negatives}-hard-negatives", measured, arguments.results)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=QUICKSTART, help="whose first stage is trained")
    parser.add_argument("--base", help="hub id, folder or bundled:NAME instead of the recipe's")
    parser.add_argument("--rows", type=Path, help="JSONL of rows (default: the recipe's source, which is pycode)")
    parser.add_argument("--repeats", type=int, default=5, help="blocks of each side")
    parser.add_argument("--steps", type=int, default=4, help="optimizer steps in a block")
    parser.add_argument("--warm-up", type=int, default=3, help="steps of each side before the first block")
    parser.add_argument("--hard-negatives", type=int, default=0)
    parser.add_argument("--batch-rows", type=int, help="rows in a batch (default: the recipe's)")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    parser.add_argument(
        "--peer-precision", choices=["auto", "bf16", "mixed", "fp32"], default="auto", help="auto: the faster one"
    )
    parser.add_argument("--peer-compile", action="store_true", help="torch_compile=True for the peer too")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override in the recipe")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    arguments = parser.parse_args()
    if min(arguments.steps, arguments.repeats, arguments.warm_up) < 1:
        parser.error("--steps, --repeats and --warm-up must be 1 or more")
    if arguments.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # both sides take a GPU where they see one
    return arguments


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """The recipe with what was asked for on the command line."""
    overrides = [f"stages.0.task.hard_negatives={arguments.hard_negatives}", PLAIN]
    if arguments.batch_rows:
        overrides.append(f"stages.0.batch.rows={arguments.batch_rows}")
    if arguments.base:
        overrides.append(f"model.base={arguments.base}")
    if arguments.rows:
        overrides.append(f"stages.0.data=[{{name: rows, source: jsonl, path: {arguments.rows.resolve()}}}]")
    return load_recipe(arguments.recipe, [*overrides, *arguments.set])


def measure(
    arguments: argparse.Namespace, recipe: Recipe, folder: Path, before: "Ours | None" = None
) -> dict[str, Any]:
    """Set up both sides, check that they do the same, and time them in turn; `before` as in `build_ours`."""
    from transformers.training_args import OptimizerNames

    from benchmarks.shared.our_trainer import build_ours
    from benchmarks.shared.peer_trainer import build_peer, loader_processes

    settings = recipe.stages[0]
    total = arguments.warm_up + arguments.steps * arguments.repeats
    base = resolve_base(recipe.model.base)
    # One batch more than is trained: the peer's loader fetches one ahead.
    count = max(total + 1, SEARCHED)
    rows = chosen_rows(load_sources(settings.data).rows, recipe, count)
    ours = build_ours(recipe, base, rows, folder, total, before)
    if arguments.device and ours.device != arguments.device:
        raise InputError(f"--device {arguments.device}: torch sees none here")
    drawn = [batch.texts for batch in islice(ours.first_batches(), count)]

    def peer_of(precision: "Precision", steps: int, given: int) -> "Peer":
        compiled = arguments.peer_compile
        few = drawn[:given]
        return build_peer(
            recipe, base.path, ours.built, few, folder, precision=precision, max_steps=steps, compiled=compiled
        )

    trials: dict[Precision, float] = {}
    precision = arguments.peer_precision
    if precision == "auto":
        precision, trials = fastest_precision(peer_of, str(ours.dtype), arguments.warm_up)
    peer = peer_of(precision, total, count)
    check = compare_losses(ours, peer, settings.task.temperature)
    timed = time_in_turn(ours, peer, arguments)
    if ours.tokens[:total] != peer.tokens[:total]:
        raise WorkError(f"the two read other tokens: {ours.tokens[:3]} and {peer.tokens[:3]} in the first steps")
    return timed | {
        "peer": {
            "precision": precision,
            "seconds_per_step_in": trials,
            "compiled": arguments.peer_compile,
            "loader_processes": loader_processes(),
            "attention": "sdpa",
            "optimizer": OptimizerNames(peer.trainer.args.optim).value,
        },
        "first_losses": check,
        "mean_loss": {"ours": float(np.mean(ours.losses)), "theirs": float(np.mean(peer.losses()))},
        "padding_share_of_ours": float(np.mean(ours.padding_shares)),
        "compiled": ours.built.encoder.backbone.compiled,
        "prepared": ours.prepared,
        "waited_for_batches_seconds": ours.waited[-arguments.repeats :],
        "dtype": str(ours.dtype),
        "device": ours.device,
        "hard_negatives": settings.task.hard_negatives,
        "recipe": {"model": recipe.model.model_dump(mode="json"), "stage": settings.model_dump(mode="json")}
        | ({"rows": "JSONL"} if arguments.rows else {}),
    }


def chosen_rows(rows: Sequence[Row], recipe: Recipe, number_of_batches: int) -> list[Row]:
    """As many rows as are needed, drawn by seed, with as many hard negatives as are asked for (mined by BM25)."""
    stage = recipe.stages[0]
    order = np.random.default_rng(recipe.seed).permutation(len(rows))
    chosen = [rows[i] for i in order[: number_of_batches * stage.batch.rows]]
    wanted = stage.task.hard_negatives
    missing = wanted - min(len(row.neg) for row in chosen)
    if missing > 0:
        say(f"mining up to {missing} more hard negatives a row")
        code = any(source.source == "pycode" for source in stage.data)
        corpus = [document for row in rows for document in row.pos]
        mined = mine_bm25(chosen, corpus, missing, tokens=tokenize_code if code else tokenize_text)
        chosen = [row for row in mined if len(row.neg) >= wanted]
    return chosen


def fastest_precision(
    peer_of: "Callable[[Precision, int, int], Peer]", our_dtype: str, steps: int
) -> "tuple[Precision, dict[Precision, float]]":
    """The precision in which the peer is faster here, and the seconds of a step in each that is open to it.

    Raises:
        torch.OutOfMemoryError: a batch fits in neither.
    """
    import torch

    from benchmarks.shared.peer_trainer import BlockClock
    from gemma4vec.training.engine.process_memory import release_memory

    if our_dtype == "torch.float32":
        return "fp32", {}
    seconds: dict[Precision, float] = {}
    candidates: tuple[Precision, ...] = ("bf16", "mixed")
    for precision in candidates:
        clock = BlockClock(1, steps, 1, lambda number: None)
        fits = True
        try:
            peer_of(precision, 1 + steps, 2 + steps).train(clock)  # its loader fetches one batch more
        except torch.OutOfMemoryError:
            fits = False
        release_memory()  # its parts hold each other: nothing of it goes before they are looked for
        if fits:
            seconds[precision] = clock.seconds[0] / steps
        say(f"theirs in {precision}: {f'{seconds[precision]:.2f} s a step' if fits else 'memory runs out'}")
    if not seconds:
        raise torch.OutOfMemoryError("a batch of the peer's fits in neither precision")
    return min(seconds, key=lambda name: seconds[name]), seconds


def compare_losses(ours: "Ours", peer: "Peer", temperature: float) -> dict[str, Any]:
    """Losses of the first batches on both sides, before any training.

    The first without duplicate texts, that is: those are no negatives to our loss, and negatives to the peer's. In fp32
    one batch decides. In bf16 both sides round, to the one side in one batch and to the other in the next, the more the
    fewer rows a batch has; another mathematics is off to one side. So up to `COMPARED` batches are looked at until
    their mean losses agree to what the peer's rounding of each cosine to 8 bits explains: 2**-8 over the temperature.

    Raises:
        WorkError: the mean losses differ by more.
    """
    import torch

    from gemma4vec.objective.nce import false_negative_mask

    exact = ours.dtype == torch.float32
    tolerance = 5e-4 if exact else 2**-8 / temperature
    losses: dict[int, tuple[float, float]] = {}
    line = ""
    for number, batch in enumerate(islice(ours.first_batches(), SEARCHED)):
        if false_negative_mask(batch.hashes.queries_N, batch.hashes.positives_N, batch.hashes.negatives_NK).any():
            continue
        losses[number] = (ours.loss_of(batch), peer.loss_of(number))
        our_loss, their_loss = (float(value) for value in np.mean(list(losses.values()), axis=0))
        line = (
            f"loss of {len(losses)} batches: ours {our_loss:.4f}, theirs {their_loss:.4f}, "
            f"allowed difference {tolerance:.4f}"
        )
        say(line)
        if abs(our_loss - their_loss) <= tolerance:
            return {"batches": list(losses), "ours": our_loss, "theirs": their_loss, "allowed_difference": tolerance}
        if exact or len(losses) == COMPARED:
            break
    if not losses:
        raise WorkError(f"each of the first {SEARCHED} batches has a text twice; use other rows or smaller batches")
    raise WorkError(f"{line}; the two do not compute the same thing, so their speeds must not be compared")


def time_in_turn(ours: "Ours", peer: "Peer", arguments: argparse.Namespace) -> dict[str, Any]:
    """Real tokens per second of both sides, block by block."""
    from benchmarks.shared.peer_trainer import BlockClock

    steps, blocks, warm_up = arguments.steps, arguments.repeats, arguments.warm_up
    ours.prepare()
    our_warm_up = [ours.train(1) for _ in range(warm_up)]
    our_seconds: list[float] = []

    def our_block(number: int) -> None:
        our_seconds.append(ours.train(steps))
        say(f"block {number + 1} of {blocks}: ours {our_seconds[-1]:.2f} s for {steps} steps, now theirs")

    clock = BlockClock(warm_up, steps, blocks, our_block)
    say("theirs: warming up")
    peer.train(clock)
    tokens = [sum(peer.tokens[warm_up + i * steps : warm_up + (i + 1) * steps]) for i in range(blocks)]
    our_speeds = [number / seconds for number, seconds in zip(tokens, our_seconds, strict=True)]
    their_speeds = [number / seconds for number, seconds in zip(tokens, clock.seconds, strict=True)]
    return {
        "unit": "real tokens per second: tokenising, forward, backward and update",
        "how": "blocks of steps in turn in one process: ours, theirs, ours, theirs",
        "ratio": summary([a / b for a, b in zip(our_speeds, their_speeds, strict=True)]),
        "ours": summary(our_speeds),
        "theirs": summary(their_speeds),
        "block_tokens": tokens,
        "block_seconds": {"ours": our_seconds, "theirs": clock.seconds},
        "warm_up_seconds": {"ours": our_warm_up, "theirs": clock.warm_up_seconds},
    }


def report(measured: dict[str, Any]) -> None:
    """The outcome on stdout."""
    peer, warm_up = measured["peer"], measured["warm_up_seconds"]
    print(f"ours    {shown(measured['ours'])} real tokens/s, compiled: {measured['compiled']}")
    print(f"theirs  {shown(measured['theirs'])} real tokens/s in {peer['precision']}, compiled: {peer['compiled']}")
    print(f"ratio   {shown(measured['ratio'], 2)} with {measured['hard_negatives']} hard negatives a row")
    print(f"mean loss: ours {measured['mean_loss']['ours']:.4f}, theirs {measured['mean_loss']['theirs']:.4f}")
    print(f"first step, not counted: ours {warm_up['ours'][0]:.1f} s, theirs {warm_up['theirs'][0]:.1f} s")


if __name__ == "__main__":
    as_program(main)
