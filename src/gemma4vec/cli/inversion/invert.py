"""`gemma4vec invert MODEL --decoder DIR`: the texts of vectors, or what a decoder recovers of new texts."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemma4vec.cli.dtype import DtypeOption, read_dtype
from gemma4vec.cli.inversion.fanout import keep_below_home
from gemma4vec.errors import InputError

if TYPE_CHECKING:
    from gemma4vec.inversion.invert import Inverter, Settings

ROLES = ("document", "query")


def invert_command(
    model: Annotated[
        str, typer.Argument(help="The model that made the vectors: a run folder, a run id or a saved model.")
    ],
    decoder: Annotated[
        Path, typer.Option("--decoder", help="Decoder of this model: its folder or its run's.", metavar="DIR")
    ],
    vectors: Annotated[
        Path | None,
        typer.Option("--vectors", help="Vectors to invert: .npy, [N, D].", metavar="FILE", show_default=False),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", help="Text to embed and to invert. Repeatable.", metavar="TEXT", show_default=False),
    ] = None,
    evaluate: Annotated[
        list[Path] | None,
        typer.Option(
            "--evaluate",
            help="Measure on texts that the decoder was not trained on: .txt (one a line) or rows (.jsonl, their "
            "queries). Repeatable.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option("--as", help="Prompt of the vectors' texts; default: the decoder's.", show_default=False),
    ] = None,
    n: Annotated[int, typer.Option("--n", help="Number of texts to write for each vector; the nearest is kept.")] = 16,
    beams: Annotated[int, typer.Option("--beams", help="How many of them beam search finds.")] = 0,
    edit: Annotated[int, typer.Option("--edit", help="Rounds of swapping one token.", min=0)] = 0,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Scale vectors to length one instead of refusing them.")
    ] = False,
    most: Annotated[int, typer.Option("--max-texts", help="Evaluate at most this many texts.", min=20)] = 1_000,
    step: Annotated[
        int | None,
        typer.Option(
            "--step",
            help="Use the decoder as it was after this step, whose weights its run kept (snapshot_at_shares).",
            min=1,
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep what is printed below HOME/inversions, for gemma4vec ui.")
    ] = False,
    dtype: DtypeOption = "auto",
    seed: Annotated[int, typer.Option("--seed", help="Seed of sampled texts.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Write the texts of vectors, or measure how well a decoder does that.

    Every text is embedded again, and the nearest of --n is kept. The cosine
    is that of its own vector and the given one. Ctrl-C keeps finished rows.
    """
    if sum(given is not None and given != [] for given in (vectors, text, evaluate)) != 1:
        raise InputError("give exactly one of --vectors, --text and --evaluate")
    if role is not None and role not in ROLES:
        raise InputError(f"--as {role}: use document or query")
    wanted = read_dtype(dtype)
    if n < 1:
        raise InputError(f"--n {n}: write at least one text for each vector")
    if not 0 <= beams <= n:
        raise InputError(f"--beams {beams}: use 0 to --n ({n})")
    if any(not one.strip() for one in text or ()):
        raise InputError("--text: a text is empty")
    from gemma4vec.cli.output import emit
    from gemma4vec.inversion.invert import Settings

    inverter = _open(model, decoder, role, wanted, step, Settings(n, beams, edit, seed))
    if evaluate:
        measured = _evaluated(inverter, evaluate, most) | {"step": step}
        emit(as_json, measured, _table)
        if keep:
            keep_below_home("measured", measured)
        return
    _invert(inverter, vectors, text or [], normalize, as_json, keep)


def _open(
    model: str, folder: Path, role: str | None, dtype: str | None, step: int | None, settings: "Settings"
) -> "Inverter":
    from gemma4vec.api.model import open_embedder
    from gemma4vec.files import home
    from gemma4vec.inversion.decoder import VectorDecoder
    from gemma4vec.inversion.invert import Inverter
    from gemma4vec.ledger.run_folder import named_run

    encoder: Any = open_embedder(model, dtype=dtype)
    run = None if folder.exists() else named_run(str(folder), home())
    path = run.path if run else folder
    opened = VectorDecoder.load(path, encoder, role=role, dtype=dtype, step=step)  # type: ignore[arg-type]
    return Inverter(opened, encoder, settings)


def _invert(
    inverter: "Inverter", file: Path | None, texts: list[str], normalize: bool, as_json: bool, keep: bool
) -> None:
    """Invert vectors of a file or of texts; print what is finished, also after Ctrl-C."""
    from gemma4vec.cli.output import emit
    from gemma4vec.inversion.candidates import embed
    from gemma4vec.inversion.read_vectors import read_vectors
    from gemma4vec.machine.terminal import ProgressBar

    facts = inverter.decoder.facts
    if file is not None:
        targets = read_vectors(file, facts.dimension, normalize=normalize)
    else:
        _warn_of_long_texts(inverter, texts)
        targets = embed(inverter.encoder, facts.role, texts)
    rows: list[dict[str, Any]] = []
    result: dict[str, Any] = {"model": inverter.encoder.name, "decoder": facts.name, "role": facts.role, "rows": rows}
    stopped = False
    try:
        with ProgressBar("inverting", "vectors") as bar:
            for block in inverter.blocks(targets):
                for one in block:
                    given = {} if file is not None else {"given": texts[len(rows)]}
                    rows.append({"row": len(rows), **given, **one.as_json()})
                bar(len(rows), len(targets))
    except KeyboardInterrupt:
        stopped = True
    result["vectors"] = len(targets)
    emit(as_json, result, _render)
    if keep:
        keep_below_home("texts", result)
    if stopped:
        raise KeyboardInterrupt(f"stopped by Ctrl-C after {len(rows)} of {len(targets)} vectors, which are shown")


def _warn_of_long_texts(inverter: "Inverter", texts: list[str]) -> None:
    import logging

    parts = inverter.decoder.parts
    longer = parts.frame.longer(parts.tokenizer, texts)
    if longer:
        logging.getLogger(__name__).warning(
            f"warning: {longer} of {len(texts)} texts ({longer / len(texts):.0%}) are longer than the "
            f"{parts.facts.text_tokens} tokens that the decoder learned to write; their ends cannot come back"
        )


def _evaluated(inverter: "Inverter", files: list[Path], most: int) -> dict[str, Any]:
    from gemma4vec.inversion.evaluate import evaluate_decoder, unseen_texts
    from gemma4vec.inversion.read_texts import read_texts
    from gemma4vec.machine.terminal import bars_by_stage

    found, sources = read_texts(files, 10**9)
    texts, sources, left_out = unseen_texts(inverter, found, sources)
    if len(texts) > most:
        import numpy as np

        chosen = sorted(np.random.default_rng(inverter.settings.seed).permutation(len(texts))[:most].tolist())
        texts, sources = [texts[number] for number in chosen], [sources[number] for number in chosen]
    with bars_by_stage("evaluating") as report:
        measured = evaluate_decoder(inverter, texts, sources, report)
    settings = inverter.settings
    return {
        "model": inverter.encoder.name,
        "decoder": inverter.decoder.facts.name,
        "role": inverter.decoder.facts.role,
        "n": settings.n,
        "beams": settings.beams,
        "edit": settings.edit,
        "seed": settings.seed,
        "left_out": left_out,
        **measured,
    }


def _render(result: dict[str, Any]) -> str:
    from gemma4vec.text.sanitize import sanitize

    lines = []
    for row in result["rows"]:
        lines += [f"given    {' '.join(sanitize(row['given']).split())}"] if "given" in row else [f"row {row['row']}"]
        removed = f"; {row['cleaned']} control characters taken out" if row["cleaned"] else ""
        lines.append(f"{row['cosine']:.4f}   {' '.join(row['text'].split())}   ({row['how']}{removed})")
        if row["nearest"] is not None:
            lines.append(
                f"{row['nearest_cosine']:.4f}   {' '.join(sanitize(row['nearest']).split())}   (nearest training text)"
            )
        lines.append("")
    return "\n".join(lines).rstrip("\n")


def _short(value: float) -> str:
    """Three decimals without a leading zero, so that four intervals fit a line."""
    shown = f"{value:.3f}"
    return shown.replace("0.", ".", 1) if shown.startswith(("0.", "-0.")) else shown


def _difference(one: dict[str, float]) -> str:
    return f"{one['mean']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}], p = {one['p']:.4f}"


def _lines_of_sources(parts: dict[str, Any]) -> Iterator[str]:
    """What the decoder adds for each source to a search and to the regression, where there are several sources."""
    from gemma4vec.inversion.evaluate import NEAREST, RIDGE

    for source, part in parts.items() if len(parts) > 1 else ():
        for name in (f"cosine over {NEAREST}", f"f1 over {RIDGE}"):
            if name in part["differences"]:
                yield f"{source} ({part['texts']:,} texts), {name}: {_difference(part['differences'][name])}"


def _table(result: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.text import Text

    from gemma4vec.cli.output import table

    def cell(row: dict[str, dict[str, float]], measure: str) -> str:
        found = row.get(measure)
        if found is None:
            return "-"
        mean, low, high = (_short(found[name]) for name in ("mean", "low", "high"))
        return mean if low == high else f"{mean} [{low}, {high}]"

    rows = [
        [name, *(cell(row, measure) for measure in ("f1", "exact", "bleu", "cosine"))]
        for name, row in result["rows"].items()
    ]
    how = f"{result['n']} texts a vector" + (f", {result['beams']} of them by beams" if result["beams"] else "")
    how += f", {result['edit']} rounds of edits" if result["edit"] else ""
    lines = [
        f"{result['texts']:,} texts that the decoder was not trained on ({result['learned']:,} it was); {how}.",
        "left out: " + ", ".join(f"{count:,} {what}" for what, count in result["left_out"].items()),
        *(f"{name}: {_difference(one)}" for name, one in result["differences"].items()),
        *_lines_of_sources(result["parts"]),
        f"{result['remark'][0].upper()}{result['remark'][1:]}.",
    ]
    title = f"{result['decoder']} on {result['role']} vectors of {result['model']}"
    return Group(table(["", "F1", "exact", "BLEU", "cosine"], rows, title), *(Text(line) for line in lines))
