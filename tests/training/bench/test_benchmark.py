"""`gemma4vec bench`: what it counts is right, what it measures adds up, and its advice is of the recipe at hand."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from tiny_context import write_context
from tiny_model import write_tiny
from torch.autograd import DeviceType

from gemma4vec.cli.main import execute
from gemma4vec.machine import dtype
from gemma4vec.machine.device import DeviceChoice
from gemma4vec.model.encoder.build import build
from gemma4vec.model.packing.packed_batch import Tokens
from gemma4vec.recipe.load import load_recipe
from gemma4vec.training.batches.micro_batches import lay_out_texts
from gemma4vec.training.bench import benchmark as bench
from gemma4vec.training.bench.advice import Observations, advise
from gemma4vec.training.bench.time_split import PARTS, kind_of, shares, split


@pytest.fixture(autouse=True, scope="module")
def rates_once() -> Iterator[None]:
    """The machine's rates are measured at the first need: each measurement takes a second, and they do not change."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("matmul_rate", "memory_bandwidth"):
            patch.setattr(bench, name, cache(getattr(bench, name)))
        yield


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    base = write_tiny(folder / "base", layers=3)
    rows = [
        {"query": f"sort tree {i}", "pos": [f"def sort_{i}(tree): return {'the node ' * (i % 9)}"]} for i in range(32)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    tree = {
        "name": "small",
        "model": {"base": str(base), "attention": "causal", "readout": {"name": "last_token"}, "max_tokens": 64},
        "stages": [
            {
                "data": [{"name": "rows", "source": "jsonl", "path": str(folder / "rows.jsonl")}],
                "batch": {"rows": 8},
                "layout": {"kind": "padded", "row_tokens": 64, "tokens_per_forward": 2048, "compile": False},
                "budget": {"steps": 5},
            }
        ],
    }
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return file


def bench_of(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert execute(["bench", *words, "--seconds", "0", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_what_is_measured_adds_up(recipe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = bench_of(capsys, str(recipe_file))
    assert found["steps"] == 3 and not found["compiled"]
    assert sum(found["time"].values()) == pytest.approx(1.0)
    assert set(found["time"]) == set(PARTS) and min(found["time"].values()) >= 0
    assert 0 < found["roofline"]["share"] < 1
    speed = found["tokens_per_second"]
    assert speed["least"] <= speed["median"] <= speed["most"]


def test_advice_is_of_the_recipe_at_hand(recipe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    padded = {one["change"].split("=")[0]: one for one in bench_of(capsys, str(recipe_file))["advice"]}
    assert padded["stages.0.layout.kind"]["factor"] > 1.03 and "stages.0.layout.compile" in padded
    changes = ["stages.0.layout.kind=packed", "stages.0.layout.row_tokens=256", "model.lora.last_layers=1"]
    changes.append("stages.0.layout.share_prefixes=false")
    packed = {one["change"].split("=")[0]: one for one in bench_of(capsys, str(recipe_file), *changes)["advice"]}
    assert "stages.0.layout.kind" not in packed and "model.lora.last_layers" not in packed
    assert packed["stages.0.layout.share_prefixes"]["factor"] > 1.03


def advice(capsys: pytest.CaptureFixture[str], file: Path, *changes: str) -> dict[str, float | None]:
    return {one["change"].split("=")[0]: one["factor"] for one in bench_of(capsys, str(file), *changes)["advice"]}


def test_what_is_computed_twice_is_counted(recipe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a backward pass of b forward ones: 1 + b, and 1 more for each second forward pass."""
    checkpointed, cached = "stages.0.layout.gradient_checkpointing", "stages.0.layout.grad_cache"
    every = advice(capsys, recipe_file, f"{checkpointed}=true", f"{cached}=true")
    one = advice(capsys, recipe_file, f"{checkpointed}=true")[checkpointed]
    upper = advice(capsys, recipe_file, f"{checkpointed}=true", "model.lora.last_layers=1")[checkpointed]
    assert one is not None and upper is not None and 1.33 < one < 1.5
    b = 1 / (one - 1) - 1
    assert every[checkpointed] == every[cached] == pytest.approx((3 + b) / (2 + b))
    assert upper == pytest.approx(1 + 1 / (3 + b), rel=0.05)  # a third of the layers, forward again and backward


def test_nothing_is_advised_that_would_not_help_or_be_refused(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = write_context(tmp_path)
    below = advice(capsys, recipe_file, f"model.readout={{name: contextual_token, encoder: {context}}}")
    assert "model.lora.last_layers" not in below  # a trained vector enters below the first layer
    apart = advice(capsys, recipe_file, "stages.0.layout.share_prefixes=false")
    assert "stages.0.layout.kind" in advice(capsys, recipe_file) and "stages.0.layout.kind" not in apart
    monkeypatch.setenv("CXX", "/nonexistent")
    assert "stages.0.layout.compile" not in advice(capsys, recipe_file)


@pytest.mark.parametrize(("most", "cut"), [(64, True), (2048, False)])
def test_a_gpu_is_to_be_filled_where_batches_are_cut(recipe_file: Path, most: int, cut: bool) -> None:
    recipe = load_recipe(recipe_file, [f"stages.0.layout.tokens_per_forward={most}", "stages.0.layout.kind=packed"])
    base = Path(recipe.model.base)
    built = build(recipe.model, base, dtype=torch.float32)
    group = lay_out_texts([Tokens(list(range(4, 24)))] * 6, recipe.stages[0].layout, 0)
    on_gpu = {"device": "cuda", "dtype": "bfloat16", "faster_dtype": "bfloat16", "waited": 0.0, "element_wise": 0.2}
    seen = Observations(groups=[group], first_trained=0, compiled=True, shared=False, shareable=False, **on_gpu)
    changes = [one.change for one in advise(recipe, 0, built, seen)]
    assert ("stages.0.layout.tokens_per_forward=16384" in changes) == cut == (len(group) > 1)


def test_a_training_that_breaks_has_no_speed(recipe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["bench", str(recipe_file), "--seconds", "0", "stages.0.optimizer.learning_rate=1e30"]) == 1
    said = capsys.readouterr().err
    assert "error: contrast: loss or gradient is not finite in step" in said and "learning_rate" in said


def test_one_screen(recipe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["bench", str(recipe_file), "--seconds", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 120
    assert any("roofline" in line for line in lines) and any("layout.kind=packed" in line for line in lines)


def test_it_says_why_this_machine_does_not_do_more(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(bench, "choose_device", lambda: DeviceChoice("cpu", "Example is too old: the CPU is used"))
    monkeypatch.setattr(dtype, "cpu_flags", lambda: {"avx2"})
    changes = ["stages.0.layout.compile=auto", "stages.0.budget={steps: 5000}", "model.dtype=bf16"]
    assert execute(["bench", str(recipe_file), *changes, "--seconds", "0"]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert max(map(len, lines)) <= 120 and len(lines) <= 40
    shown = " ".join(said.out.split())
    assert "device Example is too old: the CPU is used" in shown
    assert "dtype asked for; emulated here, 4 to 200 times slower" in shown
    assert "layers there is no C++ compiler" in shown and "layers run uncompiled: there is no C++" in said.err


def test_a_stage_that_is_not_there(recipe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["bench", str(recipe_file), "--stage", "1"]) == 2
    assert "the recipe has 1 stages" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::addmm", "matrix products"),
        ("mkldnn::_linear_pointwise", "matrix products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32", "matrix products"),
        ("nvjet_hsh_128x256", "matrix products"),
        ("aten::bmm", "attention"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("aten::mul", "element-wise"),
        ("triton_poi_fused_gelu_mul_3", "element-wise"),
        ("triton_poi_fused__scaled_dot_product_efficient_attention_mm_7", "element-wise"),
        ("triton_red_fused__unsafe_view_add_mm_mul_pow_2", "element-wise"),
        ("triton_tem_fused_mm_5", "matrix products"),
        ("triton_tem_fused_flex_attention_0", "attention"),
        ("fmha_cutlassF_bf16_aligned_64x128_rf_sm80", "attention"),
        ("Memcpy HtoD (Pageable -> Device)", "data"),
        ("Memcpy DtoD (Device -> Device)", "element-wise"),
        ("Memset (Device)", "element-wise"),
    ],
)
def test_operators_are_told_apart(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_on_a_gpu_each_kernel_counts_once() -> None:
    def event(key: str, device: DeviceType, micro: float, annotation: bool = False) -> SimpleNamespace:
        return SimpleNamespace(
            key=key,
            device_type=device,
            is_user_annotation=annotation,
            self_device_time_total=micro,
            self_cpu_time_total=7e6,  # of the processor meanwhile: no share of the GPU's time
        )

    cpu, gpu = DeviceType.CPU, DeviceType.CUDA
    events = [
        event("aten::mm", cpu, 400_000),  # what its kernel took
        event("nvjet_hsh_128x256", gpu, 400_000),
        event("aten::_scaled_dot_product_efficient_attention", cpu, 100_000),
        event("fmha_cutlassF_bf16_aligned_64x128_rf_sm80", gpu, 100_000),
        event("## Call CompiledFxGraph abc ##", cpu, 200_000),
        event("## Call CompiledFxGraph abc ##", gpu, 200_000, annotation=True),
        event("triton_poi_fused_mm_mul_1", gpu, 200_000),
        event("Memcpy HtoD (Pinned -> Device)", gpu, 50_000),
    ]
    expected = {"matrix products": 0.4, "attention": 0.1, "element-wise": 0.2, "data": 0.05, "rest": 0.25}
    assert shares(events, 1.0, on_gpu=True) == pytest.approx(expected)


def test_products_dominate_where_there_is_nothing_else() -> None:
    import time

    left = torch.randn(600, 600)

    def work() -> float:
        started = time.perf_counter()
        for _ in range(10):
            left @ left
        return time.perf_counter() - started

    found = split(work)
    assert sum(found.values()) == pytest.approx(1.0)
    assert found["matrix products"] > found["element-wise"] + found["attention"]


def test_a_compiler_that_gives_up_in_a_step_ends_nothing(
    recipe_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def falls(backbone: Any, work: Any, compile_failed: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == 4:  # the second of the steps that are measured
            work()
            compile_failed("too many shapes")
        return work()

    monkeypatch.setattr(bench, "run_with_eager_fallback", falls)
    found = bench_of(capsys, str(recipe_file))
    assert found["steps"] == 3 and found["compile_reason"] == "too many shapes"
    assert len(calls) == 2 + 1 + 1 + 3 + 1  # warm-up, compiled, both, plain, the profiler's
