"""gemma4vec: turn a decoder language model into a text-embedding model, honestly.

    import gemma4vec as g4v

    run = g4v.train("recipe.yaml", {"stages.0.batch.rows": 64})
    model = g4v.load(run)
    model.similarity(model.encode_query(["open a file"]), model.encode_document(["def open_file(path): ..."]))
    trained, bm25 = g4v.evaluate(run, "suite/"), g4v.evaluate("bm25", "suite/")
    g4v.compare(trained, bm25)

These names are the public interface; everything below them may change between releases. They are imported when they
are first used, so that `import gemma4vec` and `gemma4vec --help` load neither torch nor any other large library.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gemma4vec.api.comparing import compare as compare
    from gemma4vec.api.contamination import check_contamination as check_contamination
    from gemma4vec.api.mining import mine_hard_negatives as mine_hard_negatives
    from gemma4vec.api.model import load as load
    from gemma4vec.api.runs import train as train
    from gemma4vec.api.scoring import evaluate as evaluate
    from gemma4vec.errors import InputError as InputError
    from gemma4vec.errors import WorkError as WorkError
    from gemma4vec.export.formats.onnx_embedder import OnnxEmbedder as OnnxEmbedder
    from gemma4vec.recipe.load import load_recipe as load_recipe
    from gemma4vec.recipe.schema import Recipe as Recipe

__version__ = "0.2.0"
__all__ = [
    "InputError",
    "OnnxEmbedder",
    "Recipe",
    "WorkError",
    "__version__",
    "check_contamination",
    "compare",
    "evaluate",
    "load",
    "load_recipe",
    "mine_hard_negatives",
    "train",
]

_MODULES = {
    "InputError": "errors",
    "OnnxEmbedder": "export.formats.onnx_embedder",
    "Recipe": "recipe.schema",
    "WorkError": "errors",
    "check_contamination": "api.contamination",
    "compare": "api.comparing",
    "evaluate": "api.scoring",
    "load": "api.model",
    "load_recipe": "recipe.load",
    "mine_hard_negatives": "api.mining",
    "train": "api.runs",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    found.__module__ = __name__  # tracebacks and help() show the name that people import
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
