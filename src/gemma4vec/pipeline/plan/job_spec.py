"""What a job's process is told, and what it says it made."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gemma4vec.files import write_json
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.reading.json_values import load_own_json


@dataclass(frozen=True)
class JobSpec:
    """The work of a job's process; all values are JSON values.

    Attributes:
        key, kind: of the job.
        made: file that says afterwards what was made (`Made`).
        model: folder for the model of a job without a run of its own.
        results: folder for results that no run's folder takes.
        run: run folder of a training.
        ingredients: what it builds on: run folders, or model folders without a run.
        source: model folder of the first of them.
        method, start_weight: of a soup.
        scheme: of a quantization.
        recipe: YAML of the training for the grid; None: quantize after training.
        runs: parent of that training's run folder.
        dev, final: folders of suites to score on.
        metric: the metric of the mean dev score.
        lengths: vector lengths to score on dev too; empty: those that were trained; None: none.
        look_again: suite folder -> reason to score an unfrozen recipe on that final suite.
    """

    key: str
    kind: str
    made: str
    model: str
    results: str
    run: str | None = None
    ingredients: Sequence[str] = ()
    source: str | None = None
    method: str = ""
    start_weight: float = 0.0
    scheme: str = ""
    recipe: str | None = None
    runs: str = ""
    dev: Sequence[str] = ()
    final: Sequence[str] = ()
    metric: str = "ndcg@10"
    lengths: Sequence[int] | None = None
    look_again: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """A model that a job made, and its results.

    Attributes:
        run: its run folder; None for a model without a run.
        model: its folder.
        results: suite -> folder of the result.
        lengths: vector length -> suite -> folder of the result of cut vectors.
        refused: suite -> why it was not scored: a final suite whose recipe is not frozen.
        held_out: of a decoder: name -> its loss on held-out texts, in nats a token; empty for a model.
    """

    run: str | None
    model: str
    results: Mapping[str, str] = field(default_factory=dict)
    lengths: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    held_out: Mapping[str, float] = field(default_factory=dict)

    @property
    def run_folder(self) -> RunFolder | None:
        """Its run."""
        return RunFolder(Path(self.run)) if self.run is not None else None

    def write(self, file: Path) -> None:
        """Write it atomically."""
        write_json(file, asdict(self))


def read_made(file: Path) -> Made:
    """Read what `Made.write` wrote."""
    return Made(**load_own_json(file))
