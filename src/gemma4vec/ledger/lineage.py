"""What a model was trained on, itself and through the models that it was made from: base, teachers, start.

A run's manifest has its own rows (`data`) and, computed at its start, those of all models that it was made from
(`inherited`). A model's folder belongs to the run around it, to the run that its `gemma4vec.json` names, and to the
runs that exported the same weights, wherever it was copied to.
"""

import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemma4vec.errors import Gemma4VecError, InputError
from gemma4vec.files import home
from gemma4vec.ledger.ledger import open_ledger
from gemma4vec.ledger.records import find_enclosing_run
from gemma4vec.ledger.run_folder import MANIFEST, RunFolder

INHERITED, WEIGHTS = "inherited", "weights"  # keys of the manifest
_SNAPSHOT = re.compile(r"(?P<run>.+)-step-\d+")  # name of the model of an unfinished run


@dataclass(frozen=True)
class Lineage:
    """The training data of a model and of its ancestors.

    Attributes:
        data: run id -> its stages' data as in a manifest, the model's own run first.
        unknown: names of embedding models (and files of vectors) whose training data nobody recorded.
        pretrained: names of language models, whose training data nobody recorded either.
    """

    data: dict[str, Any] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    pretrained: tuple[str, ...] = ()

    def __or__(self, other: "Lineage") -> "Lineage":
        return Lineage(
            self.data | {run: data for run, data in other.data.items() if run not in self.data},
            tuple(dict.fromkeys((*self.unknown, *other.unknown))),
            tuple(dict.fromkeys((*self.pretrained, *other.pretrained))),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the lineage as JSON values, for a manifest."""
        return {"data": self.data, "unknown": list(self.unknown), "pretrained": list(self.pretrained)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Lineage":
        """Return the lineage that `as_json` wrote."""
        unknown, pretrained = (tuple(map(str, value.get(key) or ())) for key in ("unknown", "pretrained"))
        return cls(dict(value.get("data") or {}), unknown, pretrained)


def union(lineages: Iterable[Lineage]) -> Lineage:
    """Return all lineages as one."""
    whole = Lineage()
    for one in lineages:
        whole |= one
    return whole


def lineage_of_run(manifest: Mapping[str, Any], *, above: tuple[str, ...] = ()) -> Lineage:
    """Return the lineage of a run.

    Args:
        manifest: of the run, or its record in the ledger.
        above: ids of runs that lead here; they are not followed again.
    """
    run_id = str(manifest.get("run_id"))
    own = Lineage({run_id: manifest["data"]} if manifest.get("data") else {})
    known = manifest.get(INHERITED)
    if isinstance(known, Mapping):
        return own | Lineage.from_json(known)
    # A run from before lineages were recorded: its parents are the runs whose folders its recipe names.
    base = (manifest.get("base") or {}).get("name")
    parents = [str(parent) for parent in manifest.get("parents") or () if parent not in (run_id, *above)]
    if base and not (parents and find_enclosing_run(Path(base))):
        own |= Lineage(pretrained=(str(base),))
    for parent in parents:
        found = find_manifest(parent)
        own |= lineage_of_run(found, above=(*above, run_id)) if found else Lineage(unknown=(parent,))
    return own


def lineage_of_model(
    folder: Path | None, weights: str | None, name: str, *, recorded_name: str | None = None, pretrained: bool = False
) -> Lineage:
    """Return the lineage of a model that is opened from a folder.

    Args:
        folder: of the model; None if it has none.
        weights: hash of its weights; None if unknown.
        name: of the model, for a lineage that nobody knows.
        recorded_name: that a saved model's own settings have: its run's id.
        pretrained: whether it is a plain language model.
    """
    runs: dict[str, Mapping[str, Any]] = {run_id: {} for run_id in runs_of_weights(weights)} if weights else {}
    certain = bool(runs)
    around = find_enclosing_run(folder) if folder is not None else None
    if around is not None:
        runs[around.run_id] = around.manifest
    snapshot = _SNAPSHOT.fullmatch(recorded_name or "")
    if recorded_name:
        runs.setdefault(snapshot["run"] if snapshot else recorded_name, {})
    manifests = [found for run_id, known in runs.items() if (found := known or find_manifest(run_id))]
    # A run from before hashes were recorded, and one that was exported before it ended, vouch by their names alone.
    certain = certain or any(not one.get(WEIGHTS) or snapshot or one[WEIGHTS] == weights for one in manifests)
    whole = union(map(lineage_of_run, manifests))
    if certain:
        return whole
    return whole | (Lineage(pretrained=(name,)) if pretrained else Lineage(unknown=(name,)))


def runs_of_weights(weights: str) -> list[str]:
    """Return the ids of the runs that exported these weights, as the ledger knows them; empty if it cannot be read."""
    query = "SELECT DISTINCT json_extract(body, '$.run_id') AS run FROM records WHERE kind = 'run' AND "
    try:
        with open_ledger(home(), tolerant=True) as ledger:
            return [str(row["run"]) for row in ledger.rows(f"{query} json_extract(body, '$.weights') = ?", (weights,))]
    except (Gemma4VecError, OSError):
        return []


def find_manifest(run_id: str) -> Mapping[str, Any] | None:
    """Return the manifest of a run, or its last record in the ledger if the folder is gone; None: nobody knows it."""
    folder = find_folder(run_id)
    if folder is not None:
        return folder.manifest
    return _last_record(run_id)


def find_folder(run_id: str) -> RunFolder | None:
    """Return the folder of a run, in the outputs' home or where the ledger saw it last; None if there is none."""
    places = [home() / run_id] if Path(run_id).name == run_id else []
    recorded = _last_record(run_id)
    if recorded is not None and recorded.get("path"):
        places.append(Path(str(recorded["path"])))
    for place in places:
        with contextlib.suppress(InputError, OSError):
            if (place / MANIFEST).is_file() and RunFolder.open(place).run_id == run_id:
                return RunFolder(place)
    return None


def _last_record(run_id: str) -> dict[str, Any] | None:
    query = "SELECT body FROM records WHERE kind = 'run' AND json_extract(body, '$.run_id') = ? ORDER BY seq DESC"
    try:
        with open_ledger(home(), tolerant=True) as ledger:
            body = ledger.value(f"{query} LIMIT 1", (run_id,))
        return dict(json.loads(body)) if body else None
    except (Gemma4VecError, OSError, ValueError):
        return None
