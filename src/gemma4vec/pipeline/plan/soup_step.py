"""A step that averages models: `pipeline.soup`."""

from pathlib import Path

from gemma4vec.files import home
from gemma4vec.ledger.run_folder import find_run
from gemma4vec.model.save.read_model import SETTINGS_FILE, read_settings
from gemma4vec.pipeline.plan.job_spec import JobSpec, Made
from gemma4vec.pipeline.soup.make_soup import make_soup

GREEDY = "greedy"


def make_averaged(spec: JobSpec) -> Made:
    """Average the ingredients; a model folder that is there is whole, and is left as it is.

    Raises:
        InputError, WorkError: as `pipeline.soup.make_soup.make_soup`.
    """
    out = Path(spec.model)
    if not (out / SETTINGS_FILE).is_file():
        dev = spec.dev if spec.method == GREEDY else ()
        make_soup(spec.ingredients, out, method=spec.method, dev=dev, start_weight=spec.start_weight)
    return Made(str(find_run(str(read_settings(out)["name"]), home()).path), str(out))
