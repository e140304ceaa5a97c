"""The model card of a soup."""

from collections.abc import Sequence
from pathlib import Path

from gemma4vec.ledger.lineage import Lineage, union
from gemma4vec.model.bases.resolve import ResolvedBase
from gemma4vec.model.readout import READOUTS
from gemma4vec.model.save.model_card import averaged_card
from gemma4vec.model.save.model_lineage import lineage_of_folder
from gemma4vec.pipeline.soup.ingredients import Ingredient
from gemma4vec.pipeline.soup.record import CONTROL, SoupRecord

_METHODS = {
    "uniform": "The plain mean of the weights",
    "weights": "The weighted mean of the weights",
    "greedy": "The plain mean of the weights of those models that did not lower the score on dev suites (greedy soup, "
    "arXiv:2203.05482),",
    CONTROL: "A control for a soup: one model whose change from its start is shrunken as the soup's is,",
}


def soup_card(record: SoupRecord, ingredients: Sequence[Ingredient]) -> str:
    """Return the README.md of a soup's folder.

    Args:
        record: what it was made of.
        ingredients: the same models, with their folders.
    """
    model = ingredients[0].model
    how = _METHODS.get(record.method, f"The weights, merged by mergekit's method {record.method},")
    count = f"{len(record.names)} text-embedding model{'s' if len(record.names) > 1 else ''}"
    readout = model.readout.name.replace("_", " ")
    about = (
        f"{how} of {count} trained from `{record.start}`, made with gemma4vec: {model.attention} attention, {readout} "
        f"readout, up to {model.max_tokens} tokens. Nothing was trained for it."
    )
    table = ["| model | share | weights (sha256) |", "|---|---|---|"]
    for number, one in enumerate(ingredients):
        share = f"{(1 - record.start_weight) * _scale(record) * record.weights[number]:.4f}" if record.weights else "-"
        table.append(f"| `{one.name}` | {share} | `{one.weights[:16]}` |")
    if record.start_weight:
        table.append(
            f"| its start, `{record.start}` | {record.start_weight:.4f} | `{ingredients[0].start['weights'][:16]}` |"
        )
    if record.shrinkage is not None:
        table.append(
            f"\nThe norm of its change from the start is {record.shrinkage:.3f} of the ingredients' mean norm."
        )
    lineage: Lineage = union(lineage_of_folder(one.folder, one.weights, one.name) for one in ingredients)
    standard = READOUTS[model.readout.name].sentence_transformers is not None
    return averaged_card(record.run_id, _base(ingredients[0]), about, table, lineage.data, standard=standard)


def _scale(record: SoupRecord) -> float:
    """A control's weight is already its share."""
    return 1 / (1 - record.start_weight) if record.method == CONTROL else 1.0


def _base(ingredient: Ingredient) -> ResolvedBase:
    found = ingredient.manifest.get("base") or {}
    known = {key: found.get(key) for key in ("licence", "terms", "terms_url", "revision")}
    return ResolvedBase(str(found.get("name") or ingredient.model.base), Path(), **known)
