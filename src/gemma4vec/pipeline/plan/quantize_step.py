"""A step that puts a model's weights on a grid, without or with training for it: `pipeline.quantize`."""

from pathlib import Path

from gemma4vec.ledger.run_folder import list_runs
from gemma4vec.model.save.read_model import SETTINGS_FILE
from gemma4vec.pipeline.plan.job_spec import JobSpec, Made
from gemma4vec.pipeline.quantize.quantize_model import quantize_model
from gemma4vec.pipeline.quantize.train_quantized import train_quantized
from gemma4vec.recipe.load import parse_dump


def make_quantized(spec: JobSpec) -> Made:
    """Quantize the source; a model folder that is there is whole, and is left as it is.

    A training for the grid goes on from its last checkpoint.

    Raises:
        InputError, WorkError, Interrupted: as `pipeline.quantize`.
    """
    assert spec.source is not None
    out, source, begun = Path(spec.model), Path(spec.source), list_runs(Path(spec.runs))
    if not (out / SETTINGS_FILE).is_file():
        if spec.recipe is None:
            quantize_model(source, spec.scheme, out)
        else:
            recipe = parse_dump(spec.recipe, spec.key)
            resume = begun[-1].path if begun else None
            train_quantized(source, spec.scheme, recipe, out, runs=Path(spec.runs), resume=resume)
    trained = list_runs(Path(spec.runs)) if spec.recipe is not None else []
    return Made(str(trained[-1].path) if trained else None, str(out))
