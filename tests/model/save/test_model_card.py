"""The model card: front matter that hubs read, data, terms, and scores that can be put in again."""

from pathlib import Path

import pytest
import yaml

from gemma4vec.model.bases.bundled import GEMMA_TERMS_URL, gemma_terms
from gemma4vec.model.bases.resolve import ResolvedBase
from gemma4vec.model.save.model_card import add_scores, model_card
from gemma4vec.recipe.load import parse_recipe

RECIPE = parse_recipe(
    """
name: code-search
seed: 3
hypothesis: "Beats BM25: by 5 points"
model: {attention: causal, readout: {name: last_token}, max_tokens: 99}
stages: [{data: [{name: a, path: a.jsonl}], budget: {steps: 1}}]
""",
    "recipe",
)
DATA = {"0-contrast": {"pairs": {"source": "jsonl", "rows": 12345, "content_hash": "abcdef0123456789ffff"}}}


def card(base: ResolvedBase, data: dict = DATA) -> str:
    return model_card(RECIPE, base, data, 256)


def test_it_says_what_the_model_is() -> None:
    text = card(ResolvedBase("owner/base", Path("x"), "apache-2.0"))
    front_matter = yaml.safe_load(text.split("---")[1])
    assert front_matter["library_name"] == "sentence-transformers" and front_matter["base_model"] == "owner/base"
    assert front_matter["license"] == "apache-2.0" and "gemma4vec" in front_matter["tags"]
    for part in ("256 dimensions", "causal attention", "last token readout", "up to 99 tokens", "Seed 3"):
        assert part in text
    assert "Hypothesis: Beats BM25: by 5 points" in text
    assert "stage 0-contrast, source `pairs` (jsonl): 12,345 rows, content hash `abcdef0123456789`" in text
    assert "Not recorded." in card(ResolvedBase("b", Path("x")), {})


def test_it_carries_the_terms_of_the_base() -> None:
    name = "bundled:gemma-3-270m"
    gemma = card(ResolvedBase(name, Path("x"), "gemma", gemma_terms(name), GEMMA_TERMS_URL))
    terms = gemma.split("## Licence and terms")[1]
    assert gemma_terms(name) in terms and GEMMA_TERMS_URL in terms and "license: gemma" in gemma
    assert terms.count(GEMMA_TERMS_URL) == 1
    other = card(ResolvedBase("owner/base", Path("x"), "apache-2.0")).split("## Licence and terms")[1]
    assert "licence of the base: apache-2.0" in other and "Its terms apply to this model" in other
    unknown = card(ResolvedBase("owner/base", Path("x")))
    assert "license: other" in unknown and "not stated by the base model" in unknown


def test_scores_are_put_in_once_and_replaced(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text(card(ResolvedBase("owner/base", Path("x"), "apache-2.0")), encoding="utf-8")
    plain = file.read_text()
    add_scores(tmp_path, ["| model | nDCG@10 |", "|---|---|", "| ours | 0.5 |"])
    first = file.read_text()
    assert "## Scores\n\n| model | nDCG@10 |" in first
    assert first.index("## Scores") < first.index("## Training data") < first.index("## Licence")
    add_scores(tmp_path, ["| ours | 0.6 |"])
    second = file.read_text()
    assert "0.6" in second and "0.5" not in second and second.count("## Scores") == 1
    before, _, rest = second.partition("## Scores\n\n| ours | 0.6 |\n\n")
    assert before + rest == plain


def test_a_card_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "README.md"
    file.write_text(card(ResolvedBase("owner/base", Path("x"))), encoding="utf-8")
    before = file.read_text()

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gemma4vec.files.os.fsync", fails)
    with pytest.raises(Exception, match="no space left"):
        add_scores(tmp_path, ["| ours | 0.6 |"])
    assert file.read_text() == before
