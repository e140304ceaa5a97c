"""The trained model that is exported: opened in fp32 on the CPU, with what its small files say."""

from dataclasses import dataclass
from pathlib import Path

from gemma4vec.errors import InputError
from gemma4vec.files import home
from gemma4vec.ledger.run_folder import RunFolder, find_run, named_run
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.inference.truncated_embedder import check_trained_dimension
from gemma4vec.model.save.read_model import SETTINGS_FILE, model_of, read_settings
from gemma4vec.model.save.served_folder import matryoshka_dimensions
from gemma4vec.model.save.write_model import trained_lengths
from gemma4vec.recipe.load import parse_dump
from gemma4vec.recipe.schema import Model


@dataclass(frozen=True)
class Source:
    """A finished model.

    Attributes:
        folder: its sentence-transformers folder.
        name: its name; of a run, the run's id.
        run: the run it belongs to, if any.
        model: the recipe's model part.
        embedder: the model, in fp32.
        fingerprint: hash of its weights and settings.
        lengths: trained lengths of vector prefixes, the whole one included; empty without Matryoshka training.
    """

    folder: Path
    name: str
    run: RunFolder | None
    model: Model
    embedder: Embedder
    fingerprint: str
    lengths: tuple[int, ...]

    def check_dimension(self, dimension: int | None) -> int:
        """The number of dimensions to export.

        Raises:
            InputError: vectors of that length were never trained.
        """
        return check_trained_dimension(dimension, self.embedder.dimension, self.lengths, self.name)


def open_source(name: str) -> Source:
    """Open a run (folder, id or `latest`) or a folder that gemma4vec saved.

    Raises:
        InputError: there is no such model, the run is not finished, or the folder is not ours.
    """
    path = Path(name)
    if (path / SETTINGS_FILE).is_file():
        run = named_run(path.resolve().parent, home())
    else:
        run = find_run(name, home())
        path = run.model
        if not (path / SETTINGS_FILE).is_file():
            raise InputError(
                f"{run.path} is not finished and has no model to export; go on with: "
                f"gemma4vec train --resume {run.path}"
            )
    settings = read_settings(path)
    embedder = Embedder.load(path, device="cpu", dtype="fp32")
    assert isinstance(embedder, Embedder)  # the folder has our settings
    embedder.compiles_from = 2**62  # the reference is computed without compiled kernels
    lengths = lengths_of(path, run, embedder.dimension)
    return Source(path, embedder.name, run, model_of(settings), embedder, settings["fingerprint"], tuple(lengths))


def lengths_of(folder: Path, run: RunFolder | None, dimension: int) -> list[int]:
    """Trained lengths of vector prefixes: what the folder says, or the run's recipe for folders from before that."""
    said = matryoshka_dimensions(folder)
    if said or run is None:
        return said
    file = run.path / "recipe.yaml"
    return trained_lengths(parse_dump(run.recipe_text, str(file)), dimension) if file.is_file() else []
