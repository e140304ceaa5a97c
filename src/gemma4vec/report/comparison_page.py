"""One HTML file about several runs: what differs between them, and whether that made a difference."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gemma4vec.data.suites.kinds import name_items
from gemma4vec.errors import InputError
from gemma4vec.report.charts import comparison_charts as several_charts
from gemma4vec.report.charts import score_charts as charts
from gemma4vec.report.charts.checkpoint_charts import checkpoint_charts
from gemma4vec.report.content.comparison_data import Group, RunComparison, SuiteSection, read_comparison
from gemma4vec.report.content.contamination_sentence import stamp_sentence
from gemma4vec.report.content.examples import find_examples
from gemma4vec.report.content.run_data import METRICS, PRIMARY, as_text, columns_of, method_words, shortened
from gemma4vec.report.templating import drawn, render_template, write_page
from gemma4vec.statistics.multiplicity import Correction

FOREST_WIDTH = 290.0  # names of recipes are longer than those of models
CELL = 60  # characters of a recipe's value in the table of differences
MOST_DIFFERING = 60


def write_comparison(folders: Sequence[Path], out: Path, correction: Correction = "holm") -> Path:
    """Write the page about several runs to `out`.

    Raises:
        InputError: fewer than two runs, or a folder that is none.
        WorkError: the file cannot be written.
    """
    if out.is_dir():
        raise InputError(f"{out} is a folder; give --out the name of a file, such as {out / 'report.html'}")
    return write_page(out, render_comparison(read_comparison(folders, correction), correction))


def render_comparison(found: RunComparison, correction: Correction) -> str:
    """The page as HTML."""
    groups, first = found.groups, found.groups[0].label
    places = {group.label: place for place, group in enumerate(groups)}
    values = {
        "title": " against ".join(places) if len(places) < 4 else f"{len(places)} recipes",
        "found": found,
        "first": first,
        "headline": headline_of(found),
        "created": datetime.now(UTC).isoformat(" ", "minutes")[:16],
        "correction": {"holm": "Holm", "benjamini-hochberg": "Benjamini-Hochberg"}.get(correction, correction),
        "colours": {label: several_charts.css_of(place) for label, place in places.items()},
        "runs": [_run_rows(group) for group in groups],
        "sections": [_section(found, section, places) for section in found.suites],
        "losses": drawn(lambda width: several_charts.loss_curves(groups, width)),
        "dev": drawn(lambda width: several_charts.dev_curves(groups, width)),
        "checkpoints": [
            (run.run_id, suite, picture, said)
            for group in groups
            for run in group.runs
            for suite, picture, said in checkpoint_charts(run)
        ],
        "differing": [
            (name, [shortened(value, CELL) for value in row]) for name, row in found.differing[:MOST_DIFFERING]
        ],
        "more_differing": max(0, len(found.differing) - MOST_DIFFERING),
        "costs": [(group.label, _costs(group)) for group in groups],
    }
    return render_template("several.html", values)


def headline_of(found: RunComparison) -> str:
    """What may be said on the first suite, in one or two sentences."""
    if not found.suites:
        return "None of these runs has an evaluated trained model yet, so nothing can be said about which is better."
    section, first = found.suites[0], found.groups[0].label
    said = [
        f"{a} is {one.verdict.word} than {b} ({one.difference:+.3f}, "
        f"{one.interval.low:+.3f} to {one.interval.high:+.3f})"
        for a, b, one in section.comparisons
        if b == first and one.verdict.word in ("better", "worse")
    ]
    open_ones = [a for a, b, one in section.comparisons if b == first and one.verdict.word == "undetermined"]
    same = [a for a, b, one in section.comparisons if b == first and one.verdict.word == "equivalent"]
    sentences = [f"On {section.name}: {'; '.join(said)}." if said else ""]
    if open_ones:
        lead = "" if said else f"On {section.name}: "
        sentences.append(
            f"{lead}{'undetermined' if not said else 'Undetermined'} against {first}: {', '.join(open_ones)}."
        )
    sentences += [f"Equivalent to {first}: {', '.join(same)}."] if same else []
    return " ".join(sentence for sentence in sentences if sentence) or f"Nothing was compared on {section.name}."


def _run_rows(group: Group) -> dict[str, Any]:
    """The runs of a recipe: seed, hypothesis, decision."""
    return {
        "label": group.label,
        "recipe_id": group.recipe_id,
        "hypothesis": next((run.hypothesis for run in group.runs if run.hypothesis), ""),
        "runs": [
            {"id": run.run_id, "seed": run.manifest.get("seed"), "decision": run.decision, "path": str(run.path)}
            for run in group.runs
        ],
    }


def _section(found: RunComparison, section: SuiteSection, places: dict[str, int]) -> dict[str, Any]:
    """All that the page says about one suite."""
    comparisons = [one for _, _, one in section.comparisons]
    scale = charts.forest_scale(comparisons, FOREST_WIDTH) if comparisons else None
    by_task = several_charts.task_scale(section.tasks, FOREST_WIDTH) if section.tasks else None
    first, columns = found.groups[0].label, columns_of(section.rows[0].result)
    home = next(group for group in found.groups if group.label == section.results.names["trained"])
    kind = section.rows[0].result.kind
    return {
        "name": section.name,
        "metric": METRICS.get(section.metric, section.metric),
        "counts": section.rows[0].result.settings.get("suite") or {},
        "columns": columns,
        "queries": len(section.rows[0].result.keys),
        "item_word": name_items(kind, len(section.rows[0].result.keys)),
        "method": method_words(kind),
        "rows": [
            (row, {name: row.result.interval(name) for name in columns if name in row.result.metrics})
            for row in section.rows
        ],
        "forest": [(a, b, one, charts.forest_row(one, scale, "trained")) for a, b, one in section.comparisons if scale],
        "axis": several_charts.difference_axis(scale, section.metric) if scale else None,
        "family": section.family.sentence() if section.family else "",
        "seeds": [(a, b, one.seeds.statement) for a, b, one in section.comparisons if one.seeds],
        "tasks": [
            (row, several_charts.task_row(row, by_task, places[row.label], first)) for row in section.tasks if by_task
        ],
        "several_tasks": len({row.task for row in section.tasks}) > 1,
        "task_axis": several_charts.difference_axis(by_task, section.metric) if by_task else None,
        "cost": drawn(lambda width: several_charts.cost_against_quality(found.groups, section, width)),
        "stamps": _stamps(section),
        "notes": [as_text(note) for note in section.notes],
        "examples": find_examples(home.runs[0], section.results, "other") if section.metric == PRIMARY else None,
        "best": section.results.names["trained"],
    }


def _stamps(section: SuiteSection) -> list[tuple[str, str]]:
    """(recipes, what is known of their training data and this suite), those that say the same together."""
    said: dict[str, list[str]] = {}
    for row in section.rows:
        if sentence := stamp_sentence(row.result):
            said.setdefault(sentence, []).append(row.label)
    return [(", ".join(labels), sentence) for sentence, labels in said.items()]


def _costs(group: Group) -> list[str]:
    """Minutes, tokens and memory of a training, means over its runs."""
    cost = group.cost()
    seconds, tokens, memory = cost["seconds"], cost["tokens"], cost["memory"]
    return [
        f"{seconds / 60:.1f}" if seconds else "-",
        f"{tokens:,.0f}" if tokens else "-",
        f"{tokens / seconds:,.0f}" if tokens and seconds else "-",
        f"{memory / 2**30:.2f}" if memory else "-",
    ]
