"""Compare an export, running in its own program, with the model: tokens, vectors, batches, limits, rankings.

Shapes: N texts, D dimensions of the model, W width of the export's vectors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gemma4vec.data.suites.retrieval import RetrievalSuite
from gemma4vec.export.limits import LIMITS, UNIT, Limits
from gemma4vec.export.parity.diagnosis import likely_cause
from gemma4vec.export.parity.probes import Probe, make_probes
from gemma4vec.export.parity.ranking import compare_rankings, document_texts
from gemma4vec.export.parity.reference import Reference
from gemma4vec.export.parity.report import ParityReport, shown
from gemma4vec.export.runtimes.job import Answer, RoleText, Vectors
from gemma4vec.export.source import Source

# (texts, indices of each call's texts, indices of texts whose tokens are asked for) -> answer
Ask = Callable[[Sequence[RoleText], Sequence[Sequence[int]], Sequence[int]], Answer]
_CALL = 16  # texts of a call
_ALONE = 48  # texts that are also sent alone


@dataclass(frozen=True)
class _Rows:
    """Rows of an answer by what they are for."""

    probes: range
    alone: list[int]  # the probe of each row
    mixed: list[int]
    queries: range
    documents: range


def compare_export(source: Source, suite: RetrievalSuite, ask: Ask, *, dtype: str, dimension: int) -> ParityReport:
    """Ask the export for vectors and tokens, and compare them with ours.

    Args:
        source: the model.
        suite: a part of a dev suite.
        ask: runs the export.
        dtype: number type of the export (a key of `limits.LIMITS`).
        dimension: dimensions that carry values.

    Raises:
        InputError, WorkError: the export cannot be asked.
    """
    limits = LIMITS[dtype]
    reference = Reference(source.embedder, dimension)
    documents = document_texts(suite)
    probes = make_probes(suite.queries, documents, reference.count, reference.limit)
    if not source.embedder.encoder.readout.pool_prompt:  # other programs return zeros for a prompt alone
        probes = [probe for probe in probes if probe.text.text.strip(" ")]
    texts = [
        *(probe.text for probe in probes),
        *(RoleText("query", text) for text in suite.queries),
        *(RoleText("document", text) for text in documents),
    ]
    calls, rows = _calls(probes, len(suite.queries), len(documents))
    found = ask(texts, calls, range(len(probes)))
    report = ParityReport(source.name, source.fingerprint, found.version, dtype, dimension)
    report.width, report.texts = found.vectors_ND.shape[1], len(probes)
    ours_ND = reference.vectors(texts)
    _compare(report, reference, probes, ours_ND, found, rows, limits, suite)
    if report.problems:
        usable = [i for i, probe in enumerate(probes) if i not in found.refused and not probe.over]
        theirs = found.vectors_ND[usable]
        given = [probes[i].text for i in usable]
        report.cause = likely_cause(reference, given, theirs, ours_ND[usable], [found.tokens[i] for i in usable], dtype)
    return report


def _calls(probes: Sequence[Probe], queries: int, documents: int) -> tuple[list[list[int]], _Rows]:
    """Every probe in a batch; some alone and again in batches of other texts; then the suite."""
    number = len(probes)
    step = max(1, number // _ALONE)
    alone = sorted({*range(0, number, step), *(i for i, probe in enumerate(probes) if probe.why.startswith("limit"))})
    mixed = alone[::2][::-1]
    calls = _cut(range(number)) + [[i] for i in alone] + _cut(mixed)
    calls += _cut(range(number, number + queries)) + _cut(range(number + queries, number + queries + documents))
    at = number + len(alone) + len(mixed)
    return calls, _Rows(
        range(number), alone, mixed, range(at, at + queries), range(at + queries, at + queries + documents)
    )


def _cut(indices: Sequence[int]) -> list[list[int]]:
    return [list(indices[start : start + _CALL]) for start in range(0, len(indices), _CALL)]


def _compare(
    report: ParityReport,
    reference: Reference,
    probes: Sequence[Probe],
    ours_ND: Vectors,
    found: Answer,
    rows: _Rows,
    limits: Limits,
    suite: RetrievalSuite,
) -> None:
    """Fill the report in."""
    theirs_NW = found.vectors_ND
    if report.width < report.dimension:
        report.problems.append(f"its vectors have {report.width} dimensions and the model's {report.dimension}")
        return
    unasked = [row for row in range(len(theirs_NW)) if row not in found.refused]
    bad = [row for row in unasked if not np.isfinite(theirs_NW[row]).all()]
    if bad:
        report.problems.append(
            f"{len(bad)} vectors have values that are not finite, first {_name(bad[0], probes, rows)}"
        )
        return
    padded_NW = np.zeros((len(ours_ND), report.width), dtype=np.float32)
    padded_NW[:, : report.dimension] = ours_ND
    normal = [i for i, probe in enumerate(probes) if not probe.over]
    refused = [i for i in normal if i in found.refused]
    if refused:
        report.problems.append(f"it refuses {shown(probes[refused[0]].text)}: {found.refused[refused[0]][:150]}")
    kept = [i for i in normal if i not in found.refused]
    _compare_tokens(report, reference, probes, found, kept)
    _compare_vectors(report, probes, padded_NW, theirs_NW, kept, limits)
    _compare_batches(report, probes, theirs_NW, found, rows, limits)
    _compare_over_limit(report, reference, probes, found, padded_NW, limits)
    first = len(probes)
    split = first + len(suite.queries)
    suite_rows = [*rows.queries, *rows.documents]
    if any(row in found.refused for row in suite_rows):
        row = next(row for row in suite_rows if row in found.refused)
        if report.over_limit != "refuses":
            report.problems.append(f"it refuses a text of {suite.name}: {found.refused[row][:150]}")
        # A text over the limit has no vector there, so it ranks nowhere in both.
        refused_texts = [first + position for position, row in enumerate(suite_rows) if row in found.refused]
        theirs_NW = np.nan_to_num(theirs_NW)
        padded_NW[refused_texts] = 0.0
    theirs = theirs_NW[list(rows.queries)], theirs_NW[list(rows.documents)]
    report.ranking = compare_rankings(suite, (padded_NW[first:split], padded_NW[split:]), theirs, limits.margin)
    if not report.ranking.equivalent:
        one = report.ranking
        report.problems.append(
            f"nDCG@10 on {one.suite} is {one.export:.4f} and the model's {one.model:.4f}: not shown to differ "
            f"by less than {one.margin:g} (90% interval {one.low:+.4f} to {one.high:+.4f}, {one.queries} queries)"
        )


def _name(row: int, probes: Sequence[Probe], rows: _Rows) -> str:
    if row < len(probes):
        return shown(probes[row].text)
    again = [*rows.alone, *rows.mixed]
    at = row - len(probes)
    return shown(probes[again[at]].text) if at < len(again) else f"text {at - len(again)} of the suite"


def _cosines(one_NW: Vectors, other_NW: Vectors) -> NDArray[np.float64]:
    """Cosine of each pair of rows; 0 where one of them is zero."""
    one, other = one_NW.astype(np.float64), other_NW.astype(np.float64)
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return np.asarray((one * other).sum(-1) / np.where(lengths > 0, lengths, np.inf))


def _compare_tokens(
    report: ParityReport, reference: Reference, probes: Sequence[Probe], found: Answer, kept: Sequence[int]
) -> None:
    ours = reference.read([probes[i].text for i in kept])
    pairs = [(i, list(mine.ids), found.tokens[i]) for i, mine in zip(kept, ours, strict=True)]
    said = [(i, mine, theirs) for i, mine, theirs in pairs if theirs is not None]
    report.tokens = len(said)
    wrong = [(i, mine, theirs) for i, mine, theirs in said if mine != theirs]
    if wrong:
        i, mine, theirs = min(wrong, key=lambda entry: len(entry[1]))
        at = next(
            (n for n, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs))
        )
        report.problems.append(
            f"token ids differ on {len(wrong)} of {len(said)} texts, as on {shown(probes[i].text)}: its tokens from "
            f"{at} on are {theirs[at : at + 3]}, the model's {mine[at : at + 3]}"
        )


def _compare_vectors(
    report: ParityReport,
    probes: Sequence[Probe],
    ours_NW: Vectors,
    theirs_NW: Vectors,
    kept: Sequence[int],
    limits: Limits,
) -> None:
    if not kept:
        return
    cosines_N = _cosines(ours_NW[list(kept)], theirs_NW[list(kept)])
    report.cosine_min, report.cosine_mean = float(cosines_N.min()), float(cosines_N.mean())
    below = int((cosines_N < limits.cosine).sum())
    if below:
        worst = probes[kept[int(cosines_N.argmin())]].text
        report.problems.append(
            f"cosine {report.cosine_min:.4f} (mean {report.cosine_mean:.4f}, limit {limits.cosine:g}) on "
            f"{shown(worst)}, {below} of {len(kept)} texts below the limit"
        )
    lengths_N = np.linalg.norm(theirs_NW[list(kept)], axis=1)
    if np.abs(lengths_N - 1).max() > UNIT:
        at = int(np.abs(lengths_N - 1).argmax())
        report.problems.append(f"its vector of {shown(probes[kept[at]].text)} has length {lengths_N[at]:.4f}, not 1")


def _compare_batches(
    report: ParityReport, probes: Sequence[Probe], theirs_NW: Vectors, found: Answer, rows: _Rows, limits: Limits
) -> None:
    again = [*rows.alone, *rows.mixed]
    pairs = [(len(probes) + at, probe) for at, probe in enumerate(again)]
    pairs = [(row, probe) for row, probe in pairs if row not in found.refused and probe not in found.refused]
    if not pairs:
        return
    cosines_N = _cosines(theirs_NW[[row for row, _ in pairs]], theirs_NW[[probe for _, probe in pairs]])
    report.alone_min = float(cosines_N.min())
    if report.alone_min < limits.alone:
        worst = probes[pairs[int(cosines_N.argmin())][1]].text
        report.problems.append(
            f"a vector depends on the batch: {shown(worst)} alone or in another batch has cosine "
            f"{report.alone_min:.6f} to itself (limit {limits.alone:g})"
        )


def _compare_over_limit(
    report: ParityReport,
    reference: Reference,
    probes: Sequence[Probe],
    found: Answer,
    truncated_NW: Vectors,
    limits: Limits,
) -> None:
    """Find what happens to a text of one token more than the limit."""
    over = [i for i, probe in enumerate(probes) if probe.over]
    ways = set()
    for i in over:
        if i in found.refused:
            ways.add("refuses")
            continue
        theirs_W = found.vectors_ND[i]
        whole_W = np.zeros_like(theirs_W)
        whole_W[: report.dimension] = reference.vectors([probes[i].text], limit=probes[i].tokens)[0]
        cut, whole = float(_cosines(truncated_NW[i], theirs_W)), float(_cosines(whole_W, theirs_W))
        if max(cut, whole) < limits.cosine:
            report.problems.append(
                f"{shown(probes[i].text)}, longer than {reference.limit} tokens, has cosine {cut:.4f} to the truncated "
                f"text and {whole:.4f} to the whole one"
            )
            return
        ways.add("truncates" if cut >= whole else "reads whole")
    if len(ways) == 1:
        report.over_limit = ways.pop()
    elif ways:
        report.problems.append(f"texts over the limit are treated in different ways: {', '.join(sorted(ways))}")
