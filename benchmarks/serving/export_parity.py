"""Are exports of a real model the model, each in the program that it is for?

    python -m benchmarks.serving.export_parity [RUN ...] [--suite DEV_SUITE]

Without runs, two models of the bundled Gemma 3 270M are saved first: causal with the last token, and bidirectional with
the mean and a head to 256 dimensions (untrained weights show the same faults). Every export passes through the gate of
`gemma4vec export`. Fails (exit code 1) where GGUF f16, q8_0, ONNX or sentence-transformers is refused, or where q4_0,
which nobody trained for, is not.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.shared.record import RESULTS, as_program, say, write_result
from gemma4vec.errors import InputError

EXPORTS = (("gguf", "f16"), ("gguf", "q8_0"), ("gguf", "q4_0"), ("st", "f32"), ("onnx", "f32"))
REFUSED = {"q4_0"}
KINDS: dict[str, dict[str, Any]] = {
    "causal-last": {"attention": "causal", "readout": {"name": "last_token"}},
    "bidirectional-mean-head": {
        "attention": "bidirectional",
        "readout": {"name": "mean"},
        "head": {"widths": [768, 256]},
    },
}


def main() -> int:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as temporary:
        scratch = Path(temporary)
        models = arguments.runs or [str(save(scratch / kind, kind, arguments.base)) for kind in arguments.kinds]
        measured = {
            Path(model).parent.name if not arguments.runs else Path(model).name: {
                f"{to} {dtype}": export(model, to, dtype, scratch / "export", arguments)
                for to, dtype in EXPORTS
                if to in arguments.to
            }
            for model in models
        }
    failures = [
        f"{model}, {name}: {'not refused' if found['passed'] else found['line']}"
        for model, exports in measured.items()
        for name, found in exports.items()
        if found["passed"] == (name.split()[-1] in REFUSED)
    ]
    write_result(
        "export_parity", {"suite": arguments.suite, "models": measured, "failures": failures}, arguments.results
    )
    for failure in failures:
        print(f"FAILED  {failure}")
    return 1 if failures else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", help="finished runs or saved models (default: two of the bundled base)")
    parser.add_argument("--base", default="bundled:gemma-3-270m")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--to", nargs="+", choices=["gguf", "st", "onnx"], default=["gguf", "st", "onnx"])
    parser.add_argument("--suite", default="pycode-dev", help="dev suite for rankings")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--documents", type=int, default=300)
    parser.add_argument("--scratch", type=Path, help="folder for models and exports, some gigabytes")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of result files")
    return parser.parse_args()


def save(folder: Path, kind: str, base: str) -> Path:
    """A model of a kind, as training saves it. Return its folder."""
    import torch

    from gemma4vec.model.bases.resolve import resolve_base
    from gemma4vec.model.encoder.build import build
    from gemma4vec.model.save.write_model import save_model
    from gemma4vec.recipe.schema import Model, Recipe

    model = Model.model_validate({"base": base, "lora": None, "train": "full", "max_tokens": 512, **KINDS[kind]})
    recipe = Recipe.model_validate(
        {
            "name": kind,
            "model": model.model_dump(),
            "stages": [{"data": [{"name": "none", "path": "none.jsonl"}], "budget": {"steps": 1}}],
        }
    )
    found = resolve_base(base)
    built = build(model, found.path, dtype=torch.float32, seed=0)
    trained = {name: value.detach() for name, value in built.trainable().items()}
    save_model(folder / "model", recipe, found, trained, data={}, name=kind)
    return folder / "model"


def export(model: str, to: str, dtype: str, out: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Export once; the comparison's numbers, the seconds and the size."""
    from gemma4vec.export.export_model import ParityError, export_model
    from gemma4vec.files import folder_bytes

    started = time.perf_counter()
    size = None
    try:
        made = export_model(
            model,
            to,
            dtype=dtype,
            out=out,
            suite=arguments.suite,
            queries=arguments.queries,
            documents=arguments.documents,
        )
        report, line, size = made.report, "", folder_bytes(made.folder)
    except ParityError as error:
        report, line = error.report, str(error)
    except InputError as error:
        return {"passed": False, "line": str(error)}
    seconds = time.perf_counter() - started
    say(f"{report.model}, {to} {dtype}: {line or f'cosine min {report.cosine_min:.6f}'} ({seconds:.0f} s)")
    return {**report.as_json(), "line": line, "seconds": seconds, "bytes": size}


if __name__ == "__main__":
    as_program(main)
