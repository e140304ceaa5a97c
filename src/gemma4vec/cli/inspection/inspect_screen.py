"""One screen about an inspection: the strongest slices, kinds of failure with base rates, advice."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from gemma4vec.cli.output import table

SHOWN = 5


def screen(found: Mapping[str, Any]) -> RenderableType:
    """Render what `gemma4vec inspect --json` prints."""
    halves = found["halves"]
    split = f"{halves['discovery']} open, {halves['sealed']} sealed" if halves else "no halves"
    means = ", ".join(f"{name} {value:.3f}" for name, value in found["discovery_means"].items())
    head = f"{found['suite']['name']}: {found['queries']} queries ({split}), {found['metric']}: {means}"
    parts: list[RenderableType] = [Text(head)]
    paired = [one for one in found["slices"] if one["view"] == "paired"]
    shown = (paired or found["slices"])[:SHOWN]
    if shown:
        view = f"{found['model']['name']} minus {found['against']['name']}" if paired else found["model"]["name"]
        parts.append(
            table(
                ["slice", "queries", "inside", "elsewhere", "gap", "p", "detects from", "id"],
                [_slice(one) for one in shown],
                title=f"Slices, {view}; p is corrected for {shown[0]['tried']} rules",
            )
        )
    if found["kinds"]:
        rows = [_kind(one) for one in found["kinds"] if one["failures"]["hits"] or one["successes"]["hits"]]
        columns = ["kind", "of failures", "of successes", "ratio", "what it is"]
        parts.append(table(columns, rows, title=f"Kinds of failure, {found['failures']} failures of the open half"))
    parts += _probes(found.get("probes"))
    parts += _layers(found.get("layers"))
    parts += _topics(found.get("clusters"), found.get("map"))
    parts += [Text(f"{number}. {one['what']} ({one['figure']})") for number, one in enumerate(found["advice"], start=1)]
    parts += [Text(note) for note in found["notes"]]
    parts.append(Text(f"folder: {found['folder']}"))
    return Group(*parts)


def _probes(found: Mapping[str, Any] | None) -> list[RenderableType]:
    """Every figure in its order, those worse than BM25 marked, and the curve of LIMIT."""
    if found is None:
        return []
    rows = [
        [one["probe"], "yes" if one["clear"] else "", one["sentence"].partition(": ")[2]] for one in found["figures"]
    ]
    parts: list[RenderableType] = [table(["probe", "worse", "figure"], rows, title="Probes")] if rows else []
    for one in found["probes"]:
        if one.get("curve"):
            curve = ", ".join(f"{k}: {value:.2f}" for k, value in one["curve"]["recall"].items())
            parts.append(Text(f"LIMIT, recall by dimensions: {curve}; BM25 {one['curve']['bm25']:.2f}"))
        if one["note"]:
            parts.append(Text(f"{one['name']}: {one['note']}"))
    return parts


def _layers(found: Mapping[str, Any] | None) -> list[RenderableType]:
    """A line a layer, and what choosing the best one is worth on queries that did not choose."""
    if found is None or not found["layers"]:
        return [Text(f"layers: {found['note']}")] if found is not None and found["note"] else []
    rows = [
        [
            one["layer"],
            f"{one['ndcg@10']:.3f}",
            f"{one['minus_last']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f})",
            f"{one['effective_rank']:.0f}",
            f"{one['cka_with_last']:.2f}",
        ]
        for one in found["layers"]
    ]
    title = f"Layers among {found['documents']} documents, pooled by {found['pooling']}; 0 are the input embeddings"
    held_out = f"chosen on half of the queries, {found['best_held_out']:.3f} on the other"
    best = f"best: layer {found['best']}, {found['best_score']:.3f}; {held_out}"
    columns = ["layer", "nDCG@10", "minus the last", "effective rank", "CKA with the last"]
    return [table(columns, rows, title=title), Text(best), *([Text(found["note"])] if found["note"] else [])]


def _topics(found: Mapping[str, Any] | None, mapped: Mapping[str, Any] | None) -> list[RenderableType]:
    """Topics, those with the lowest values first, and what the map is worth."""
    parts: list[RenderableType] = []
    if found is not None and found["clusters"]:
        tested = [one for one in found["clusters"] if one["gap"] is not None]
        rows = [
            [one["rule"], one["n"], f"{one['gap']:+.3f}", f"{one['p_max_t']:.3f}"]
            for one in sorted(tested, key=lambda one: one["gap"])[:SHOWN]
        ]
        title = f"Topics of the queries; p is corrected for {found['tested']}"
        parts.append(table(["topic", "queries", "gap", "p"], rows, title=title))
    if found is not None and found["note"]:
        parts.append(Text(f"topics: {found['note']}"))
    if mapped is not None:
        kept = f"it keeps {mapped['kept_neighbors']:.0%} of the {mapped['neighbors']} nearest neighbors"
        if mapped["method"] != "PCA":
            kept += f" (PCA: {mapped['kept_by_axes']:.0%})"
        parts.append(Text(f"map by {mapped['method']}: {kept}"))
    return parts


def _slice(one: Mapping[str, Any]) -> list[object]:
    state = "" if one["status"] == "proposed" else f" ({one['status']})"
    return [
        f"{one['rule']}{state}",
        one["n"],
        f"{one['inside']:+.3f}" if one["view"] == "paired" else f"{one['inside']:.3f}",
        f"{one['outside']:+.3f}" if one["view"] == "paired" else f"{one['outside']:.3f}",
        f"{one['gap']:+.3f}",
        "<.001" if one["p_max_t"] < 0.001 else f"{one['p_max_t']:.3f}",
        "-" if one["can_show"] is None else f"{one['can_show']:.3f}",
        one["id"],
    ]


def _kind(one: Mapping[str, Any]) -> list[object]:
    ratio = "-"
    if one["low"] is not None:
        ratio = (
            f"{'-' if one['ratio'] is None else format(one['ratio'], '.1f')} ({one['low']:.1f} to {one['high']:.1f})"
        )
    rates = [one[side]["value"] for side in ("failures", "successes")]
    shares = ["-" if rate is None else f"{rate:.1%}" for rate in rates]
    return [one["name"], shares[0], "-" if one["name"] == "near_miss" else shares[1], ratio, one["words"]]
