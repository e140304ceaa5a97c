"""The closed list of remedies: each is a function that writes its files and returns what changes in the recipe."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gemma4vec.data.mining.hard_negatives import Rules, WithoutNegatives, build_corpus, mine
from gemma4vec.data.mining.searchers import Bm25Searcher
from gemma4vec.data.rows.jsonl import write_lines
from gemma4vec.data.rows.rows import Row, write_rows
from gemma4vec.data.sources.drops import row_key
from gemma4vec.inspection.remedy.matching import random_rows
from gemma4vec.inspection.remedy.setting import Flags, MatchedRows, Remedy, Setting
from gemma4vec.machine.terminal import ProgressBar
from gemma4vec.recipe.sources import JsonlSource, Source
from gemma4vec.recipe.terms import HARDNESS, Kl, MarginMse, Nce

NO_ROWS = "your data has no such rows"
LEAST_CHANGE = 1.25  # times as frequent: re-weighting that makes rows less frequent than this changes little
POSITIVE_AWARE = 0.95  # NV-Retriever's best share of the positive's score (arXiv:2407.15831, table 3)
CUT = 0.25  # share of the slice's queries with cut evidence or documents that makes truncation a cause
COVERED = 0.95  # share of the right documents' tokens that a longer limit is to cover
LONGEST = 8192  # tokens
Write = Callable[[Setting, Path], Remedy]
REMEDIES: dict[str, Write] = {}


def remedy(function: Write) -> Write:
    """Register a remedy under its function's name."""
    REMEDIES[function.__name__] = function
    return function


@remedy
def reweight(setting: Setting, folder: Path) -> Remedy:
    """A pass reads the matching rows several times."""
    offer = Remedy(
        "reweight",
        f"a pass reads matching rows {setting.times} times",
        matching=setting.matching,
        rows=setting.rows,
    )
    if not setting.matching:
        return replace(offer, why_not=NO_ROWS)
    before = setting.matching / setting.rows
    after = setting.times * before / (1.0 + (setting.times - 1) * before)
    if after < LEAST_CHANGE * before:
        why = f"{before:.0%} of your rows are such rows already, and would be {after:.0%} of a pass"
        return replace(offer, why_not=why)
    offer = replace(offer, words=f"{offer.words}: {after:.0%} of a pass are such rows for {before:.0%}")
    taken = next((one.source.name for one in setting.own if one.source.repeat is not None), None)
    if taken is not None:
        return replace(offer, why_not=f"source {taken} has a list of repeated rows already")
    drawn = random_rows({one.source.name: one.matching for one in setting.own}, setting.seed)
    changes: dict[str, object] = {}
    control: dict[str, object] = {}
    files = []
    for place, one in enumerate(setting.own):
        if not one.count:
            continue
        arms = ((changes, one.matching, ""), (control, drawn[one.source.name], "-control"))
        for found, mask_R, arm in arms:
            name = f"reweight-{one.source.name}{arm}.jsonl"
            keys = dict.fromkeys(row_key(one.rows[number]) for number in np.flatnonzero(mask_R).tolist())
            write_lines(folder / name, ({"key": key, "times": setting.times} for key in keys))
            found[f"stages.{setting.stage}.data.{place}.repeat"] = str(setting.out / name)
            files.append(name)
    return replace(offer, changes=changes, control=control, files=tuple(files))


@remedy
def mine_negatives(setting: Setting, folder: Path) -> Remedy:
    """Matching rows have new hard negatives, below a share of the positive's score."""
    wanted = setting.task.hard_negatives
    offer = Remedy(
        "mine_negatives",
        f"matching rows have {wanted} new negatives by BM25, below {POSITIVE_AWARE:.0%} of the positive's score",
        matching=setting.matching,
        rows=setting.rows,
    )
    if not setting.matching:
        return replace(offer, why_not=NO_ROWS)
    if not wanted:
        return replace(offer, why_not="the recipe takes no hard negatives (task.hard_negatives is 0)")
    scored = next((term.label for term in setting.task.terms if isinstance(term, Kl | MarginMse)), None)
    if scored is not None:
        return replace(offer, why_not=f"the term {scored} needs a teacher's scores, which new negatives lack")
    drawn = random_rows({one.source.name: one.matching for one in setting.own}, setting.seed)
    sources: dict[str, list[object]] = {"": [], "-control": []}
    files = []
    for one in setting.own:
        for arm, mask_R in (("", one.matching), ("-control", drawn[one.source.name])):
            if not one.count:
                sources[arm].append(one.source.model_dump(mode="json"))
                continue
            name = f"mined-{one.source.name}{arm}.jsonl"
            write_rows(folder / name, _mined(one, mask_R, wanted))
            sources[arm].append(_as_jsonl(one.source, str(setting.out / name)))
            files.append(name)
    key = f"stages.{setting.stage}.data"
    return replace(offer, changes={key: sources[""]}, control={key: sources["-control"]}, files=tuple(files))


@remedy
def add_source(setting: Setting, folder: Path) -> Remedy:
    """The matching rows of the offered source that has most of them, as a share of its rows."""
    offer = Remedy("add_source", "the matching rows of another source join the data")
    if not setting.others:
        return replace(offer, why_not="no other source was named (--source)")
    best = max(setting.others, key=lambda one: one.share)
    offer = replace(offer, matching=best.count, rows=len(best.rows))
    if not best.count:
        return replace(offer, why_not="no source that was named has such rows")
    offer = replace(offer, words=f"{best.count:,} matching rows of {best.source.name} join the data")
    drawn = random_rows({"": best.matching}, setting.seed)[""]
    key, files, arms = f"stages.{setting.stage}.data", [], []
    for arm, mask_R in (("", best.matching), ("-control", drawn)):
        name = f"added-{best.source.name}{arm}.jsonl"
        write_rows(folder / name, (best.rows[number] for number in np.flatnonzero(mask_R).tolist()))
        added = {
            "name": _free_name(f"added-{best.source.name}", setting.own),
            "path": str(setting.out / name),
            "weight": _weight(best.count, setting.own),
        }
        arms.append({key: [*(one.source.model_dump(mode="json") for one in setting.own), added]})
        files.append(name)
    return replace(offer, changes=arms[0], control=arms[1], files=tuple(files))


@remedy
def objective(setting: Setting, folder: Path) -> Remedy:
    """Hard negatives weigh more; without any, a lower temperature weighs the nearest of the batch more."""
    task, key = setting.task, f"stages.{setting.stage}.task"
    place = next((n for n, term in enumerate(task.terms) if isinstance(term, Nce) and not term.hardness), None)
    if task.hard_negatives and place is not None:
        words = f"a row's own hard negatives weigh exp({HARDNESS:g} * similarity)"
        return Remedy("objective", words, changes={f"{key}.terms.{place}.hardness": HARDNESS})
    if task.learn_temperature is not None:
        return Remedy(
            "objective", "harder negatives", why_not="the temperature is learned, and hardness is set already"
        )
    half = task.temperature / 2
    return Remedy("objective", f"temperature {half:g} for {task.temperature:g}", changes={f"{key}.temperature": half})


@remedy
def architecture(setting: Setting, folder: Path) -> Remedy:
    """A longer limit where truncation is the cause."""
    offer = Remedy("architecture", "the model reads longer texts")
    places = setting.open_queries()
    cut = {
        name: sum(setting.columns[name][row] is True for row in places) / max(len(places), 1)
        for name in ("gold_truncated", "evidence_cut")
        if name in setting.columns
    }
    if not cut or max(cut.values()) < CUT:
        return replace(offer, why_not="the model does not cut the right documents of this slice")
    model, batch = setting.recipe.model, setting.settings.batch
    needed = int(np.quantile(setting.tokens, COVERED)) if len(setting.tokens) else 2 * model.max_tokens
    longer = min(max(2 * model.max_tokens, _round_up(needed)), LONGEST)
    if longer <= model.max_tokens:
        return replace(offer, why_not=f"the model reads {model.max_tokens} tokens already")
    changes: dict[str, object] = {"model.max_tokens": longer}
    if batch.document_tokens is not None:
        changes[f"stages.{setting.stage}.batch.document_tokens"] = None
    share = max(cut.values())
    words = (
        f"the model reads {longer} tokens for {model.max_tokens}; {share:.0%} of the slice's right documents are cut"
    )
    return replace(offer, words=words, changes=changes)


@remedy
def labels(setting: Setting, folder: Path) -> Remedy:
    """A list of the slice's doubtful judgments, for a person; nothing is trained."""
    offer = Remedy("labels", "read the slice's doubtful judgments first")
    kinds, first = setting.columns.get("kinds"), setting.columns.get("top1_doc")
    rows = [row for row in setting.open_queries() if kinds and "label_doubtful" in (kinds[row] or [])]
    if not rows or first is None:
        return replace(
            offer, why_not="no judgment of this slice is doubtful (no unjudged document that two models agree on)"
        )
    name = "labels.jsonl"
    queries = setting.columns["query_id"]
    write_lines(folder / name, ({"query_id": queries[row], "doc_id": first[row]} for row in rows))
    return replace(offer, words=f"{len(rows)} queries of the slice have doubtful judgments", files=(name,))


def _mined(one: MatchedRows, mask_R: Flags, wanted: int) -> Sequence[Row]:
    """All rows of a source in their order; the masked ones with mined negatives, where enough are found."""
    chosen = np.flatnonzero(mask_R).tolist()
    corpus = build_corpus(one.rows)
    rules = Rules(n=wanted, window=(1, max(100, wanted)), share=POSITIVE_AWARE)
    with ProgressBar(f"mine {one.source.name}", "rows") as bar:
        found = mine(
            WithoutNegatives([one.rows[number] for number in chosen]),
            corpus,
            rules,
            bm25=Bm25Searcher(corpus.documents),
            progress=bar,
        )
        rows = list(one.rows)
        for number, mined in zip(chosen, found, strict=True):
            if len(mined.row.neg) >= min(wanted, 1):
                rows[number] = _filled(mined.row, one.rows[number], wanted)
    return rows


def _filled(mined: Row, before: Row, wanted: int) -> Row:
    """The mined negatives, filled up from those that the row had."""
    return replace(mined, neg=[*mined.neg, *before.neg][: max(wanted, len(before.neg))], scores=None)


def _as_jsonl(source: Source, path: str) -> dict[str, object]:
    """The source with its rows in another file, under the same name and weight."""
    shared = set(JsonlSource.model_fields) - {"source", "path", "negatives", "drop", "max_rows", "max_bad_share"}
    return {**source.model_dump(mode="json", include=shared), "path": path, "source": "jsonl"}


def _free_name(name: str, own: Sequence[MatchedRows]) -> str:
    names = {one.source.name for one in own}
    return name if name not in names else f"{name}-2"


def _weight(count: int, own: Sequence[MatchedRows]) -> float | None:
    """A weight like the others': that of as many rows; None where sources have none."""
    weights = [one.source.weight for one in own]
    if any(weight is None for weight in weights):
        return None
    total = sum(weight or 0.0 for weight in weights)
    return total * count / sum(len(one.rows) for one in own)


def _round_up(tokens: int) -> int:
    return -(-tokens // 64) * 64


def names_of(found: Mapping[str, Write] = REMEDIES) -> list[str]:
    """The closed list."""
    return list(found)
