"""The model card of a saved model: usage, training data, license and terms."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gemma4vec.files import atomic_write
from gemma4vec.model.bases.resolve import ResolvedBase
from gemma4vec.recipe.schema import Model, Recipe

_SCORES_HEADING, _QUANTIZATION_HEADING, _DATA_HEADING = "## Scores", "## Quantization", "## Training data"
_NEEDS_US = (
    "sentence-transformers does not have its readout, so gemma4vec must be installed to open it. "
    "`trust_remote_code=True` allows that library to import the class; this folder contains no code."
)


def model_card(
    recipe: Recipe,
    base: ResolvedBase,
    data: Mapping[str, Any],
    dimension: int,
    checkpoint: str = "",
    *,
    standard: bool = True,
) -> str:
    """The README.md of a model folder.

    Args:
        recipe: the run's recipe.
        base: the base, with its license and terms.
        data: stage -> source -> its facts.
        dimension: length of a vector.
        checkpoint: the exported checkpoint, in words.
        standard: whether the folder opens without gemma4vec.
    """
    model = recipe.model
    parts = [
        _front_matter(base),
        f"# {recipe.name}",
        f"A text-embedding model made from `{base.name}` with gemma4vec: {dimension} dimensions, {model.attention} "
        f"attention, {model.readout.name.replace('_', ' ')} readout, up to {model.max_tokens} tokens.",
        *([] if standard else [_NEEDS_US]),
        _usage(standard),
        f"{_DATA_HEADING}\n\n" + "\n".join([*_start_lines(model), *_data_lines(data)]),
        f"## Recipe\n\nSee `recipe.yaml` of the run. Seed {recipe.seed}."
        + (f" Exported: {checkpoint}." if checkpoint else "")
        + (f"\n\nHypothesis: {recipe.hypothesis}" if recipe.hypothesis else ""),
        f"## Licence and terms\n\n{_terms(base)}",
    ]
    return "\n\n".join(parts) + "\n"


def add_scores(folder: Path, lines: Sequence[str]) -> None:
    """Write a Scores section (Markdown lines) into the card of a model folder, replacing an earlier one."""
    file = folder / "README.md"
    card = file.read_text(encoding="utf-8")
    head, _, rest = card.partition(_SCORES_HEADING)
    tail = rest[rest.index("\n## ") + 1 :] if "\n## " in rest else ""
    if not rest:
        at = card.index(_DATA_HEADING)
        head, tail = card[:at], card[at:]
    with atomic_write(file) as stream:
        stream.write(f"{head}{_SCORES_HEADING}\n\n" + "\n".join(lines) + f"\n\n{tail}")


def with_quantization(card: str, description: str) -> str:
    """Return a card with a section on quantization before the training data; earlier scores are left out.

    They are those of other weights.
    """
    for heading in (_SCORES_HEADING, _QUANTIZATION_HEADING):
        before, found, after = card.partition(f"{heading}\n")
        if found:
            card = before + (after[after.index("\n## ") + 1 :] if "\n## " in after else "")
    section = f"{_QUANTIZATION_HEADING}\n\n{description}\n\n"
    before, found, after = card.partition(f"{_DATA_HEADING}\n")
    return f"{before}{section}{found}{after}" if found else f"{card.rstrip()}\n\n{section}"


def averaged_card(
    title: str,
    base: ResolvedBase,
    about: str,
    table: Sequence[str],
    data: Mapping[str, Mapping[str, Any]],
    *,
    standard: bool = True,
) -> str:
    """The README.md of a model that was not trained, but averaged from others.

    Args:
        title: its heading.
        base: the base of the others, with its license and terms.
        about: what it is, in sentences.
        table: lines of Markdown about the others.
        data: run -> stage -> source -> its facts, of all that they were trained on.
        standard: whether the folder opens without gemma4vec.
    """
    lines = [
        line.replace("- stage", f"- run {run}, stage") for run, of_run in data.items() for line in _data_lines(of_run)
    ]
    parts = [
        _front_matter(base),
        f"# {title}",
        about,
        *([] if standard else [_NEEDS_US]),
        _usage(standard),
        "## Ingredients\n\n" + "\n".join(table),
        "## Training data\n\n" + ("\n".join(lines) or "Not recorded."),
        f"## Licence and terms\n\n{_terms(base)}",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(base: ResolvedBase) -> str:
    front_matter = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "feature-extraction", "sentence-similarity", "gemma4vec"],
        "base_model": base.name,
        "license": base.licence or "other",
    }
    return "---\n" + yaml.safe_dump(front_matter, sort_keys=False) + "---"


def _usage(standard: bool) -> str:
    return (
        "```python\nfrom sentence_transformers import SentenceTransformer\n\n"
        f'model = SentenceTransformer("path/to/this/folder"{"" if standard else ", trust_remote_code=True"})\n'
        'queries = model.encode_query(["how do I ..."])\n'
        'documents = model.encode_document(["..."])\n'
        "scores = model.similarity(queries, documents)\n```"
    )


def _start_lines(model: Model) -> list[str]:
    """Say which trained model this one went on from, without the folders of this machine."""
    if model.start is None:
        return []
    folder = Path(model.start)
    return [f"- before: that of `{(folder.parent if folder.name == 'model' else folder).name}`, the trained start"]


def _data_lines(data: Mapping[str, Any]) -> list[str]:
    lines = []
    for stage, sources in data.items():
        for name, facts in sources.items():
            lines.append(
                f"- stage {stage}, source `{name}` ({facts['source']}): {facts['rows']:,} rows, "
                f"content hash `{facts['content_hash'][:16]}`"
            )
    return lines or ["Not recorded."]


def _terms(base: ResolvedBase) -> str:
    if base.terms:
        return f"{base.terms}" + (f" {base.terms_url}" if base.terms_url and base.terms_url not in base.terms else "")
    licence = base.licence or "not stated by the base model"
    return f"Derived from `{base.name}`; licence of the base: {licence}. Its terms apply to this model."
