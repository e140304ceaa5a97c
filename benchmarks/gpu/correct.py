"""The correctness part of `gpu`: every fast path on the device against the plain padded one on the CPU, in fp32."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.found import Found, said_of
from benchmarks.shared.record import say
from gemma4vec.data.rows.rows import Row
from gemma4vec.errors import WorkError
from gemma4vec.model.backbone.attention_probe import check
from gemma4vec.model.backbone.compilation import choose_compile, use_compile_cache
from gemma4vec.model.backbone.kernel_options import DEFAULTS, fast_paths
from gemma4vec.model.encoder.build import EmbeddingModel, build
from gemma4vec.recipe.load import parse_recipe
from gemma4vec.recipe.schema import Recipe
from gemma4vec.training.prepare_model import compile_for_training
from gemma4vec.training.tasks.contrastive import ContrastTask

# Relative errors, ||found - expected|| / ||expected||, that rounding in fp32 explains. A wrong mask gives above .01.
ALLOWED = {"vectors": 1e-4, "gradients": 1e-3}
LEAST_COSINE_BF16, TIMES_BF16 = 0.99, 3.0  # or so many times what bf16 costs the plain path
COMPILED = ("gemma-4", "270m")  # of each family one: a compilation takes a minute
SMOKE = "shared beginnings, compiled"  # what a CPU compiles
FLEX = {"flex_attention": True}  # on a GPU alone
OF_A_CPU = asdict(DEFAULTS["cpu"])
LAYOUTS: dict[str, dict[str, Any]] = {
    "padded": {"kind": "padded"},
    "packed": {"kind": "packed", "share_prefixes": False},
    "shared beginnings": {"kind": "packed", "share_prefixes": True},
    "packed, compiled": {"kind": "packed", "share_prefixes": False, "compile": True},
    "shared beginnings, compiled": {"kind": "packed", "share_prefixes": True, "compile": True},
    "checkpointed": {"kind": "packed", "gradient_checkpointing": True},
    "selective": {"kind": "packed", "gradient_checkpointing": "selective"},
    "flex": {"kind": "packed", "row_tokens": 512, "fast_paths": FLEX},
    "GradCache": {"kind": "packed", "grad_cache": True, "tokens_per_forward": 256},
    "padded, compiled": {"kind": "padded", "compile": True},
    "checkpointed, compiled": {"kind": "packed", "gradient_checkpointing": True, "compile": True},
    "selective, compiled": {"kind": "packed", "gradient_checkpointing": "selective", "compile": True},
    "flex, compiled": {"kind": "packed", "row_tokens": 512, "fast_paths": FLEX, "compile": True},
    "all of a CPU's fast paths, compiled": {"kind": "packed", "fast_paths": OF_A_CPU, "compile": True},
    "GradCache, compiled": {"kind": "packed", "grad_cache": True, "tokens_per_forward": 256, "compile": True},
}


def correctness(bases: dict[str, Path], rows: list[Row], device: str, found: Found, *, compiled: bool = True) -> None:
    """Put the errors of each layout in both attention modes on each base into `found`; compiled layers come last.

    Compiled ones are of `COMPILED`, under both modes; on a CPU, where this is but a smoke test, `SMOKE` alone.

    Raises:
        WorkError: one is larger than rounding explains, or is NaN.
    """
    torch.set_float32_matmul_precision("highest")  # TF32 would round every product to ten bits
    # All layouts of all models of a kind share their layers' code, and what was compiled of it counts up.
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 1024
    choice = choose_compile("auto" if compiled else False, steps=None, minutes=None)
    by_model: dict[str, dict[str, Any]] = {}
    found.keep(allowed=ALLOWED | {"cosine_bf16": LEAST_COSINE_BF16}, compiled=vars(choice), by_model=by_model)
    for kind in (False, True) if choice.on else (False,):
        for name, base in reversed(bases.items()) if kind else bases.items():  # compiled, the real one comes first
            for attention in ("causal", "bidirectional"):
                paths = paths_of(attention, compiled=kind, smoke=device == "cpu")
                if paths and (name in COMPILED or not kind):
                    errors = by_model.setdefault(f"{name}, {attention}", {})
                    compare(base, attention, rows, device, paths, errors, found)
    wrong = [f"{name}, {layout}" for name, errors in by_model.items() for layout, x in errors.items() if not x["ok"]]
    if wrong:
        raise WorkError(f"{len(wrong)} paths differ from the CPU's plain one, first: {wrong[0]}")


def paths_of(attention: str, *, compiled: bool, smoke: bool) -> dict[str, dict[str, Any]]:
    """Of `LAYOUTS` the plain or the compiled ones that this attention mode allows."""
    return {
        name: layout
        for name, layout in LAYOUTS.items()
        if layout.get("compile", False) == compiled
        and (attention == "causal" or not layout.get("share_prefixes"))
        and (name == SMOKE or not (compiled and smoke))
        and not (smoke and layout.get("fast_paths") == FLEX)
    }


def compare(
    base: Path,
    attention: str,
    rows: list[Row],
    device: str,
    paths: dict[str, dict[str, Any]],
    errors: dict[str, Any],
    found: Found,
) -> None:
    """Relative errors of each of these layouts."""

    def failed(name: str, error: Exception) -> None:
        """The other paths are worth knowing too; this one fails the part at its end."""
        errors[name] = {"ok": False, "error": said_of(error, 500)}
        found.keep()
        say(f"  {base.name}, {attention}, {name}: {errors[name]['error']}")

    plain = recipe(base, attention, LAYOUTS["padded"] | {"compile": False}, len(rows))
    vectors_AD, gradients = run(plain, base, rows, "cpu", torch.float32)
    for name, layout in paths.items():
        chosen = recipe(base, attention, {"compile": False} | layout, len(rows))
        try:
            theirs_AD, their_gradients = run(chosen, base, rows, device, torch.float32)
        except Exception as error:
            failed(name, error)
            continue
        one = {
            "vectors": relative_error(theirs_AD, vectors_AD),
            "gradients": relative_error(their_gradients, gradients),
        }
        errors[name] = one | {"ok": all(one[key] <= ALLOWED[key] for key in ALLOWED)}
        found.keep()
        say(f"  {base.name}, {attention}, {name}: vectors {one['vectors']:.1e}, gradients {one['gradients']:.1e}")
    compiled = any(layout.get("compile") for layout in paths.values())
    if compiled and device == "cpu":
        return
    name = "packed, bf16" + (", compiled" if compiled else "")
    layout = {"kind": "packed", "compile": compiled}
    try:
        rounded_AD, _ = run(recipe(base, attention, layout, len(rows)), base, rows, device, torch.bfloat16)
        plainly_AD, _ = run(plain, base, rows, "cpu", torch.bfloat16)
    except Exception as error:
        return failed(name, error)
    cosine, plainly = least_cosine(rounded_AD, vectors_AD), least_cosine(plainly_AD, vectors_AD)
    allowed = max(1 - LEAST_COSINE_BF16, TIMES_BF16 * (1 - plainly))  # a model of random values rounds badly anywhere
    errors[name] = {"least_cosine": cosine, "of_the_plain_path": plainly, "ok": 1 - cosine <= allowed}
    found.keep()
    say(f"  {base.name}, {attention}, {name}: least cosine {cosine:.4f}, on the CPU's plain path {plainly:.4f}")


def least_cosine(found_AD: torch.Tensor, expected_AD: torch.Tensor) -> float:
    """The least cosine of equal rows."""
    return float(torch.nn.functional.cosine_similarity(found_AD, expected_AD, dim=1).min())


def recipe(base: Path, attention: str, layout: dict[str, Any], rows: int) -> Recipe:
    """A contrast with one hard negative on this base."""
    import yaml

    readout = "last_token" if attention == "causal" else "mean"
    settings = {"row_tokens": 128, "tokens_per_forward": 1024} | layout
    tree = {
        "name": "gpu-correctness",
        "model": {"base": str(base), "attention": attention, "readout": {"name": readout}, "max_tokens": 96},
        "stages": [
            {
                "data": [{"name": "rows", "source": "jsonl", "path": "rows.jsonl"}],
                "task": {"hard_negatives": 1},
                "batch": {"rows": rows},
                "layout": settings,
                "budget": {"steps": 1},
            }
        ],
    }
    return parse_recipe(yaml.safe_dump(tree), "gpu_correct.py")


def run(
    chosen: Recipe, base: Path, rows: list[Row], device: str, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors `[A, D]` of all texts, and the gradients of all adapters in one row, both fp32 on the CPU."""
    stage = chosen.stages[0]
    built = build(chosen.model, base, dtype=dtype, device=device, seed=0)
    fill_adapters(built)
    built.encoder.train()
    task = ContrastTask.make(stage, rows, built, max_tokens=chosen.model.max_tokens, seed=0)
    backbone = built.encoder.backbone
    backbone.fast = fast_paths(device, stage.layout.fast_paths)
    backbone.use_gradient_checkpointing(stage.layout.gradient_checkpointing)
    if stage.layout.compile is True:
        use_compile_cache()
        compile_for_training(backbone)
        check(backbone, stage.layout.tokens_per_forward // stage.layout.row_tokens, stage.layout.row_tokens)
    batch = next(task.batches(0))
    with torch.no_grad():
        vectors_AD = task._vectors(built, batch).float().cpu()
    task.loss(built, batch).value.backward()
    gradients = [built.trainable()[name].grad for name in sorted(built.trainable())]
    return vectors_AD, torch.cat([gradient.float().flatten().cpu() for gradient in gradients if gradient is not None])


def fill_adapters(built: EmbeddingModel) -> None:
    """Give the factors that begin at zero some values: else half of the gradients would be zero."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in sorted(built.trainable().items()):
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.01)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """||found - expected|| / ||expected||; infinite where the shapes differ or something is NaN."""
    if found.shape != expected.shape or not torch.isfinite(found).all():
        return float("inf")
    return float((found.double() - expected.double()).norm() / expected.double().norm())
