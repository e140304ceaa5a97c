"""The mark on scores of a run whose training data overlaps with the suite.

A query is touched if it, or one of its relevant documents, is in the training data; `data.quality.contamination`
has the rules. The mark is made from the records of `gemma4vec data check` (`data.quality.contamination_record`) about
the data of everything that the model was made from (`ledger.lineage`). It is stored with the result as
`settings["contamination"]`, and shown wherever the scores are shown.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from gemma4vec.data.quality.contamination_record import ContaminationRecord, read_record, sources_from_manifest
from gemma4vec.data.suites.group import OneSuite
from gemma4vec.evaluation.results.result import Result
from gemma4vec.ledger.lineage import Lineage


def find_mark(lineage: Lineage, tasks: Sequence[OneSuite] | None) -> dict[str, Any] | None:
    """Find the known overlap of a model's training data, and its ancestors', with the tasks of a suite.

    Returns:
        None for a model that was trained on nothing (BM25); else {"sources": summaries of the records, "unchecked":
        names of sources without a record for some task, "touched_queries": task -> ids, "runs": ids of the runs whose
        data count, "unknown": names of embedding models whose training data nobody recorded, "pretrained": those of
        language models}.

    Raises:
        InputError: a damaged record.
    """
    if lineage == Lineage():
        return None
    sources: dict[str, dict[str, Any]] = {}
    for number, (run, data) in enumerate(lineage.data.items()):
        for key, source in sources_from_manifest({"data": data}).items():
            name = str(source["name"]) if number == 0 else f"{source['name']} of {run}"
            sources.setdefault(key, {**source, "name": name})
    stamps: list[ContaminationRecord] = []
    # The texts of mteb's tasks are not available here, so nothing was checked.
    unchecked = {str(source["name"]) for source in sources.values()} if tasks is None else set[str]()
    touched: dict[str, list[str]] = {}
    for task in tasks or ():
        found = {key: read_record(key, task.fingerprint) for key in sources}
        unchecked.update(str(sources[key]["name"]) for key, stamp in found.items() if stamp is None)
        of_task = [stamp for stamp in found.values() if stamp is not None]
        stamps += of_task
        if ids := {key for stamp in of_task for key in stamp.touched_queries}:
            touched[task.name] = sorted(ids)
    return {
        "sources": [stamp.summary() for stamp in stamps],
        "unchecked": sorted(unchecked),
        "touched_queries": touched,
        "runs": list(lineage.data),
        "unknown": list(lineage.unknown),
        "pretrained": list(lineage.pretrained),
    }


def touched_queries(result: Result) -> set[tuple[str, str]]:
    """Return (task, id) of the result's queries that its model's training data touches, among those checked."""
    touched = (result.settings.get("contamination") or {}).get("touched_queries") or {}
    return {(task, key) for task, ids in touched.items() for key in ids} & set(result.keys)


def mean_without_touched(result: Result) -> dict[str, float] | None:
    """Return the figures without the touched queries; None if none is touched, or none remains."""
    touched = touched_queries(result)
    rest = result.without(touched)
    return rest.mean if touched and rest.per_query else None


def mark_sentence(result: Result, *, unchecked: bool = True) -> str | None:
    """Describe the mark in one sentence; None if the result has none or its data is clean.

    What plain language models were pretrained on is unknown too, but not said with each score: see `find_mark`.

    Args:
        result: with its settings.
        unchecked: also name the data that was not checked, and models whose training data nobody recorded.
    """
    mark = result.settings.get("contamination")
    if not mark:
        return None
    touched, queries, metric = touched_queries(result), result.keys, result.metric
    parts = []
    if touched:
        rest = result.without(touched)
        remaining = len(queries) - len(touched)
        score = (
            f"{metric} {rest.mean[metric]:.4f} on the other {remaining:,}" if rest.per_query else "no others are left"
        )
        parts.append(f"training data touches {len(touched):,} of {len(queries):,} queries; {score}")
    documents = sum(source["found_documents"] for source in mark["sources"])
    if documents and (result.settings.get("suite") or {}).get("documents_in_training"):
        parts.append(f"trained on {documents:,} of the documents that it searches, as this suite allows")
    elif documents and not touched:
        parts.append(f"training data holds {documents:,} of its documents, none of them relevant to a query")
    if mark["unchecked"] and unchecked:
        parts.append(f"not checked against this suite: {_names(mark['unchecked'])} (gemma4vec data check)")
    if mark.get("unknown") and unchecked:
        parts.append(unknown_sentence(mark["unknown"]))
    return "; ".join(parts) or None


def unknown_sentence(models: Sequence[str]) -> str:
    """Say that nobody recorded what these models were trained on."""
    return f"unknown: whether the training data of {_names(models)} overlaps with this suite"


def _names(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
