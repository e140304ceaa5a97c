"""The output of `gemma4vec train RECIPE --dry-run`: one screen for people, one JSON document for programs."""

from typing import TYPE_CHECKING, Any

from gemma4vec.cli.output import emit
from gemma4vec.machine.memory import paused_collections

if TYPE_CHECKING:
    from gemma4vec.recipe.schema import Recipe
    from gemma4vec.training.engine.parameter_count import Parameters
    from gemma4vec.training.estimate.dry_run import Estimate, StageEstimate
    from gemma4vec.training.estimate.memory import Memory

GB = 1e9


def show_dry_run(recipe: "Recipe", as_json: bool, *, measure_compiled: bool = False) -> None:
    """Estimate a run's cost and print it; with `measure_compiled` from compiled layers, which takes minutes.

    Raises:
        InputError: for every reason that would stop the run itself.
    """
    from gemma4vec.data.loading.built_sources import samples_beside
    from gemma4vec.data.loading.missing_files import refuse_missing_files
    from gemma4vec.model.bases.described_beside import described_beside

    sources = [source for stage in recipe.stages for source in stage.data]
    refuse_missing_files(sources)  # before torch is imported
    sampled = all(stage.evaluation.stop is None for stage in recipe.stages)  # a stop rule needs what is built
    with described_beside(recipe.model.start or recipe.model.base), samples_beside(sources if sampled else ()):
        with paused_collections():
            from gemma4vec.training.estimate.dry_run import estimate

        found = as_dict(estimate(recipe, measure_compiled=measure_compiled))
    emit(as_json, found, as_text)


def as_dict(found: "Estimate") -> dict[str, Any]:
    """The estimate as JSON values; memory in GB (1e9 bytes), time in seconds."""
    from gemma4vec.data.loading.load_rows import SAMPLED
    from gemma4vec.machine.describe import list_gpus, memory_bytes
    from gemma4vec.training.estimate.dry_run import checkpoint_bytes, model_bytes

    recipe, parameters = found.recipe, found.parameters
    total, available = memory_bytes()
    adapters = 4 * parameters.total.get("adapters", 0)
    return {
        "recipe": recipe.name,
        "base": {
            "name": recipe.model.base,
            "ready": found.base.ready,
            "state": found.base.state,
            "weights_gb": None if found.base.weight_bytes is None else found.base.weight_bytes / GB,
            "model_type": found.model_type,
            "layers": found.layers,
        },
        "attention": recipe.model.attention,
        "readout": recipe.model.readout.name,
        "device": found.device,
        "dtype": {"name": str(found.dtype.dtype).removeprefix("torch."), "reason": found.dtype.reason},
        "parameters": {
            "total": sum(parameters.total.values()),
            "trainable": sum(parameters.trainable.values()),
            "by_part": parameters.total,
            "trainable_by_part": parameters.trainable,
        },
        "stages": [
            _stage(stage, settings) | _beside(stage, parameters)
            for stage, settings in zip(found.stages, recipe.stages, strict=True)
        ],
        "steps": sum(stage.steps for stage in found.stages),
        "seconds": sum(stage.seconds for stage in found.stages),
        "peak_memory_gb": found.peak_bytes / GB,
        "export_memory_gb": found.export_bytes / GB,
        "fits": _fits(found, total, available, list_gpus()),
        "reads": [
            {"source": name, "path": facts["path"], "rows": facts["rows"], "sample_of": facts.get(SAMPLED)}
            for name, facts in found.sources.items()
        ],
        "detectable": _detectable(recipe),
        "stop_rules": found.stop_rules,
        "writes_gb": {
            "checkpoints": checkpoint_bytes([stage.parameters for stage in found.stages], recipe.stages) / GB,
            "model": model_bytes(parameters) / GB,
            "adapter": adapters / GB,
        },
    }


def _stage(stage: "StageEstimate", settings: Any) -> dict[str, Any]:
    layout = settings.layout
    return {
        "name": stage.name,
        "layout": {
            "kind": layout.kind,
            "grouping": layout.grouping,
            "tokens_per_forward": stage.fit.tokens_per_forward,
            "gradient_checkpointing": layout.gradient_checkpointing,
            "grad_cache": stage.fit.cached,
            "memory_remark": stage.fit.remark,
            "compiled": stage.compile.on,
            "compile_reason": stage.compile.reason,
        },
        "rows_per_step": settings.batch.rows * settings.batch.accumulate,
        "hard_negatives": settings.task.hard_negatives if settings.task.kind == "contrast" else 0,
        "steps": stage.steps,
        "tokens_per_step": stage.tokens_per_step,
        "padding_share": stage.reading.padding_share,
        "padding_by_layout": stage.reading.padding_by_layout,
        "batches_read": stage.reading.batches,
        "seconds_per_step": stage.seconds_per_step,
        "time_from": vars(stage.source) | {"sentence": stage.source.sentence},
        "seconds": stage.seconds,
        "clusters": vars(stage.clusters) if stage.clusters is not None else None,
        "flops_per_step": stage.flops.total,
        "memory_gb": _memory(stage.memory),
        "gpu_memory_gb": _memory(stage.gpu_memory),
    }


def _beside(stage: "StageEstimate", without: "Parameters") -> dict[str, Any]:
    """What a stage trains next to its model: parameters, and its memory without activations, if there is any."""
    own = stage.parameters
    names = ("weight_bytes", "trainable_bytes", "master_bytes", "moment_bytes")
    memory = sum(getattr(own, name) - getattr(without, name) for name in names) / GB
    part = "decoder" if stage.has_decoder else "objective"
    if not stage.has_decoder and part not in own.total:
        return {}
    return {
        part: {
            "parameters": own.total.get(part, 0),
            "trainable": own.trainable.get(part, 0),
            "memory_gb": memory,
        }
    }


def _detectable(recipe: "Recipe") -> list[dict[str, Any]]:
    """The smallest difference that each stage's evaluations can detect, for stages that name a suite."""
    from pathlib import Path

    from gemma4vec.data.suites.retrieval import load_suite
    from gemma4vec.data.suites.sample import sample_suite
    from gemma4vec.evaluation.planning.power_forecast import forecast_power

    found = []
    for stage in recipe.stages:
        settings = stage.evaluation
        if settings.suite and (settings.every_steps is not None or settings.at_shares):
            suite = sample_suite(load_suite(Path(settings.suite)), settings.max_queries, settings.max_documents)
            power = forecast_power(suite.name, suite.fingerprint, len(suite.queries))
            found.append({"stage": stage.name, **vars(power), "sentence": power.sentence()})
    return found


def _memory(memory: "Memory") -> dict[str, float]:
    return {name: size / GB for name, size in {**vars(memory), "peak": memory.peak}.items()}


def _fits(found: "Estimate", total: int, available: int, cards: list[dict[str, Any]]) -> dict[str, Any]:
    """Whether the largest stage fits this machine, each of its GPUs, and GPUs of common sizes."""
    from gemma4vec.training.estimate.memory import gpu_table

    needed = found.peak_bytes
    gpu = max((stage.gpu_memory for stage in found.stages), key=lambda memory: memory.peak)
    return {
        "this_machine": {
            "needed_gb": needed / GB,
            "export_gb": found.export_bytes / GB,
            "available_gb": available / GB,
            "total_gb": total / GB,
            "fits": needed <= available,
        },
        "gpus_here": [{"name": card["name"], **gpu_table(gpu, [card["memory_gb"]])[0]} for card in cards],
        "gpus": gpu_table(gpu),
    }


def as_text(found: dict[str, Any]) -> str:
    """One screen."""
    base, parameters, dtype = found["base"], found["parameters"], found["dtype"]
    size = "unknown size" if base["weights_gb"] is None else f"{base['weights_gb']:.2f} GB"
    parts = ", ".join(f"{name} {count:,}" for name, count in parameters["by_part"].items())
    share = parameters["trainable"] / parameters["total"]
    lines = [
        f"dry run of {found['recipe']}: no weights loaded, nothing trained",
        _line("base", f"{base['name']}, {base['model_type']}, {base['layers']} layers, weights {size}"),
        _line("", base["state"]),
        _line("model", f"{found['attention']} attention, {found['readout']} readout"),
        _line("dtype", f"{dtype['name']} on {found['device']} ({dtype['reason']})"),
        _line("parameters", f"{parameters['total']:,} ({parts})"),
        _line("trainable", f"{parameters['trainable']:,} ({share:.2%})"),
    ]
    for number, stage in enumerate(found["stages"]):
        lines += ["", *_stage_lines(number, stage)]
    lines += ["", *_fit_lines(found["fits"]), ""]
    if len(found["stages"]) > 1:
        lines.append(_line("whole run", f"{found['steps']:,} steps, {_duration(found['seconds'])}"))
    lines += [_line("reads", _source_words(source)) for source in found["reads"]]
    lines += [_line("detects", one["sentence"]) for one in found["detectable"]]
    lines += [_line("stop rule", sentence) for sentence in found["stop_rules"]]
    writes = ", ".join(f"{name} {size:.2f} GB" for name, size in found["writes_gb"].items())
    return "\n".join([*lines, _line("writes", writes)])


def _source_words(source: dict[str, Any]) -> str:
    rows, sample = f"{source['source']}: {source['rows']:,} rows", source["sample_of"]
    if sample is None:
        return f"{rows}, {source['path']}"
    return f"{rows}, a sample from {sample['files']:,} of {sample['of']:,} files; the run builds all of them first"


def _stage_lines(number: int, stage: dict[str, Any]) -> list[str]:
    layout, memory = stage["layout"], stage["memory_gb"]
    rate = stage["tokens_per_step"] / stage["seconds_per_step"]
    checkpointing = ", gradient checkpointing" if layout["gradient_checkpointing"] else ""
    cached = ", GradCache" if layout["grad_cache"] else ""
    compiled = "compiled" if layout["compiled"] else f"not compiled: {layout['compile_reason']}"
    negatives = f", {stage['hard_negatives']} hard negatives each" if stage["hard_negatives"] else ""
    parts = ", ".join(f"{name} {size:.2f}" for name, size in memory.items() if name != "peak")
    decoder, objective = stage.get("decoder"), stage.get("objective")
    return [
        f"stage {number}: {stage['name']}",
        _line("layout", f"{layout['kind']}, {layout['grouping']}{checkpointing}{cached}, {compiled}"),
        _line(
            "step",
            f"{stage['rows_per_step']} rows{negatives}, {stage['tokens_per_step']:,.0f} tokens "
            f"({stage['padding_share']:.1%} padding; mean of {stage['batches_read']} batches)",
        ),
        _line(
            "padding",
            " or ".join(f"{share:.1%} {kind}" for kind, share in stage["padding_by_layout"].items())
            + f", in micro-batches of {layout['tokens_per_forward']:,} cells",
        ),
        _line(
            "time",
            f"{stage['seconds_per_step']:.2f} s a step ({rate:,.0f} tokens/s, "
            f"{stage['flops_per_step'] / 1e12:.2f} TFLOP), {stage['steps']:,} steps: {_duration(stage['seconds'])}",
        ),
        *([_line("", stage["time_from"]["sentence"])] if stage["time_from"]["sentence"] else []),
        *([_line("clusters", _cluster_words(stage["clusters"]))] if stage["clusters"] else []),
        _line("memory", f"{memory['peak']:.2f} GB at the peak ({parts})"),
        *([_line("decoder", _decoder_words(decoder))] if decoder else []),
        *([_line("objective", _objective_words(objective))] if objective else []),
        *([_line("", layout["memory_remark"])] if layout["memory_remark"] else []),
    ]


def _cluster_words(clusters: dict[str, Any]) -> str:
    times = f", {clusters['times']:,} times" if clusters["times"] > 1 else ""
    rows = f"{clusters['rows']:,} rows{times}, by {clusters['by']}"
    if clusters["seconds"] is None:
        return f"{rows}: the model is not on this machine, so nobody measured how long it takes"
    how = (
        f"from {clusters['measured']} rows; less where vectors are on disk" if clusters["measured"] else "as its steps"
    )
    return f"{rows}: {_duration(clusters['seconds'])} beside the steps ({how})"


def _decoder_words(decoder: dict[str, Any]) -> str:
    if not decoder["parameters"]:
        return "the encoder's own layers: no parameters of its own"
    counts = f"{decoder['parameters']:,} parameters ({decoder['trainable']:,} trainable)"
    return f"{counts}, {decoder['memory_gb']:.2f} GB of that with its optimizer; in checkpoints alone"


def _objective_words(objective: dict[str, Any]) -> str:
    count, memory = objective["parameters"], objective["memory_gb"]
    return f"{count:,} parameters are trained next to the model, {memory:.2f} GB of that with their optimizer"


def _fit_lines(fits: dict[str, Any]) -> list[str]:
    here = fits["this_machine"]
    verdict = "fits" if here["fits"] else "DOES NOT FIT"
    lines = [
        _line(
            "here",
            f"{verdict}: {here['needed_gb']:.1f} GB of {here['available_gb']:.1f} GB free "
            f"(the export alone needs {here['export_gb']:.1f})",
        )
    ]
    for card in fits["gpus_here"]:
        word = "fits" if card["fits"] else "DOES NOT FIT"
        lines.append(_line(card["name"][:12], f"{word}: {card['needed_gb']:.1f} of {card['memory_gb']:g} GB"))
    sizes = ", ".join(f"{card['memory_gb']:g} GB {'fits' if card['fits'] else 'NO'}" for card in fits["gpus"])
    return [*lines, _line("GPUs of", f"{sizes} (needs about {fits['gpus'][0]['needed_gb']:.1f} GB)")]


def _line(label: str, text: str) -> str:
    return f"  {label:<12}{text}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
