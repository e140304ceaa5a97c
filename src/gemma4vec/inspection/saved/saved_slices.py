"""Slices that a person saved: rules on an inspection's attributes, kept in the ledger like every other record.

Whoever picks a rule while looking at single queries has tried many without counting them. So a saved slice has its gap
on the open half without a p, and the sealed half alone says whether there is one.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gemma4vec.errors import Gemma4VecError, InputError, WorkError
from gemma4vec.files import home
from gemma4vec.inspection.inspection_files import load_columns, load_inspection
from gemma4vec.inspection.predicates import parse_predicate
from gemma4vec.inspection.sealed import DISCOVERY, SEALED
from gemma4vec.inspection.slices import PROPOSED, SMALLEST, View, slice_id
from gemma4vec.ledger.journal import Record
from gemma4vec.ledger.ledger import add, now, open_ledger
from gemma4vec.statistics.slices.gap import slice_gap

KIND = "slice"


def identity_of_stored(about: Mapping[str, Any]) -> str:
    """What the ids of slices depend on: both models and the suite's contents, of a stored inspection."""
    other = about["against"]["fingerprint"] if about["against"] is not None else ""
    return f"{about['model']['fingerprint']} {other} {about['suite']['fingerprint']}"


def save_slice(folder: Path, rule: str, view: View) -> dict[str, Any]:
    """Save a rule as a slice of an inspection. The same rule again is the same slice.

    Args:
        folder: of the inspection.
        rule: such as `overlap <= 0.3`.
        view: "paired" where there is another model, or "absolute".

    Returns:
        The slice with the fields of `slices.json`; what a choice by looking has not is None: `p`, `p_max_t`, `tried`.

    Raises:
        InputError: no rule, an attribute that is not stored, too few queries of the open half on either side, no
            sealed ones, or the paired view without another model.
        WorkError: the ledger cannot record it.
    """
    about, slices = load_inspection(folder)
    if view not in ("paired", "absolute") or (view == "paired" and about["against"] is None):
        raise InputError(f"the view '{view[:20]}' is none of this inspection")
    predicate = parse_predicate(rule)
    columns = load_columns(folder)
    key = slice_id(str(predicate), view, identity_of_stored(about))
    known = known_slice(key, about, slices)
    if known is not None:
        return known
    mask_N = predicate.mask(columns)
    open_N, sealed_N = (np.array([one == half for one in columns["half"]]) for half in (DISCOVERY, SEALED))
    inside, outside = int((mask_N & open_N).sum()), int((~mask_N & open_N).sum())
    if min(inside, outside) < SMALLEST:
        raise InputError(
            f"the slice '{predicate}' has {inside} queries of the open half and leaves {outside}; a slice needs "
            f"{SMALLEST} on either side"
        )
    n_sealed = int((mask_N & sealed_N).sum())
    if n_sealed in (0, int(sealed_N.sum())):
        raise InputError(f"the slice '{predicate}' has {n_sealed} of {int(sealed_N.sum())} sealed queries")
    found = _measured(columns, str(about["metric"]), view, mask_N[open_N], open_N)
    made = {
        "id": key,
        "rule": str(predicate),
        "words": predicate.words(),
        "view": view,
        "n": inside,
        "n_sealed": n_sealed,
        **found,
        "status": PROPOSED,
    }
    sides = {"model": about["model"]["name"], "against": about["against"]["name"] if view == "paired" else None}
    of_suite = {"suite": about["suite"]["name"], "suite_fingerprint": about["suite"]["fingerprint"]}
    body = {"slice": key, **of_suite, **sides, "identity": identity_of_stored(about), "saved": made}
    try:
        add(home(), [Record(f"slice-{key}", KIND, now(), body)])
    except (Gemma4VecError, OSError) as error:
        raise WorkError(f"the slice cannot be recorded: {error}") from error
    return made


def saved_slices(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The slices that were saved for these models and this suite, oldest first; none if the ledger cannot be read."""
    query = (
        "SELECT body FROM records WHERE kind = ? AND json_extract(body, '$.suite_fingerprint') = ? "
        "AND json_extract(body, '$.identity') = ? ORDER BY seq"
    )
    try:
        with open_ledger(home(), tolerant=True) as ledger:
            rows = ledger.rows(query, (KIND, about["suite"]["fingerprint"], identity_of_stored(about)))
    except (Gemma4VecError, OSError):
        return []
    found = [json.loads(row["body"]).get("saved") for row in rows]
    return [one for one in found if isinstance(one, dict) and set(one) >= _FIELDS]


_FIELDS = {"id", "rule", "words", "view", "n", "n_sealed", "inside", "outside", "gap", "can_show", "status"}


def known_slice(name: str, about: Mapping[str, Any], slices: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The slice with an id: proposed by the inspection, or saved by a person; None if there is none."""
    return next((one for one in [*slices, *saved_slices(about)] if one["id"] == name), None)


def _measured(
    columns: Mapping[str, Sequence[Any]],
    metric: str,
    view: View,
    mask_D: npt.NDArray[np.bool_],
    open_N: npt.NDArray[np.bool_],
) -> dict[str, Any]:
    """Means and gap on the open half."""
    rows = np.flatnonzero(open_N).tolist()
    own, other = columns[metric], columns.get("against")
    try:
        values_D = np.array([float(own[row]) for row in rows])
        if view == "paired" and other is not None:
            values_D = values_D - np.array([float(other[row]) for row in rows])
    except TypeError as error:
        raise InputError("the inspection's values are damaged (a query without a score); inspect again") from error
    gap = slice_gap(values_D, mask_D, permutations=1)
    means = {"inside": float(values_D[mask_D].mean()), "outside": float(values_D[~mask_D].mean())}
    return {**means, "gap": gap.gap, "p": None, "p_max_t": None, "tried": None, "can_show": gap.detectable}
