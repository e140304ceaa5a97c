"""Terms of a contrast in a recipe: what they mean when little is said, and what is refused."""

import pytest

from gemma4vec.errors import InputError
from gemma4vec.recipe.load import dump_recipe, parse_recipe
from gemma4vec.recipe.recorded.fingerprint import recipe_id
from gemma4vec.recipe.schema import Contrast, Recipe
from gemma4vec.recipe.terms import Gor, Nce, SelfContrast

TEXT = """
name: my
stages:
  - data: [{name: rows, path: rows.jsonl}]
    budget: {steps: 10}
    task:
      hard_negatives: 2
      terms:
        - {kind: nce, hardness: true, matryoshka: [768, 256]}
        - {kind: gor, weight: 0.5}
        - {kind: self_contrast, name: views}
"""


def contrast(recipe: Recipe) -> Contrast:
    task = recipe.stages[0].task
    assert isinstance(task, Contrast)
    return task


def test_terms_are_read_and_written_back() -> None:
    recipe = parse_recipe(TEXT, "my.yaml", ["stages.0.task.terms.1.form=spread_out"])
    terms = contrast(recipe).terms
    assert terms == (
        Nce(hardness=5.0, matryoshka=(768, 256)),
        Gor(weight=0.5, form="spread_out"),
        SelfContrast(name="views"),
    )
    assert [term.label for term in terms] == ["nce", "gor", "views"]
    assert parse_recipe(dump_recipe(recipe), "dumped") == recipe


def test_hardness_is_embedding_gemmas_where_rows_have_hard_negatives_and_written_down() -> None:
    assert Contrast().terms == (Nce(hardness=0.0),)
    assert Contrast(hard_negatives=2).terms == (Nce(hardness=5.0),)
    assert Nce(hardness=False).hardness == 0.0 and Nce(hardness=1).hardness == 1.0
    text = TEXT.replace("hardness: true, ", "")
    assert contrast(parse_recipe(text, "my.yaml")).terms == contrast(parse_recipe(TEXT, "my.yaml")).terms
    assert "hardness: 5.0" in dump_recipe(parse_recipe(text, "my.yaml"))
    zero = parse_recipe(text, "my.yaml", ["stages.0.task.terms.0.hardness=0"])
    (first, *_) = contrast(zero).terms
    assert isinstance(first, Nce) and first.hardness == 0.0 and parse_recipe(dump_recipe(zero), "dumped") == zero
    assert contrast(parse_recipe(text, "my.yaml", ["stages.0.task.hard_negatives=0"])).terms == (
        Nce(hardness=0.0, matryoshka=(768, 256)),
        *contrast(zero).terms[1:],
    )


def test_a_terms_name_is_no_method() -> None:
    named = parse_recipe(TEXT, "my.yaml", ["stages.0.task.terms.1.name=spread"])
    assert contrast(named).terms[1].label == "spread"
    assert recipe_id(named) == recipe_id(parse_recipe(TEXT, "my.yaml"))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("terms.1.kind=gorr", "stages.0.task.terms.1.kind: there is no 'gorr'; did you mean 'gor'?"),
        ("terms.1.kind=cosent", "stages.0.task.terms.1.kind: there is no 'cosent'; there are nce, gor, self_contrast"),
        ("terms.0.hardnes=1", "unknown key 'stages.0.task.terms.0.hardnes'; did you mean 'hardness'?"),
        ("terms.1.weight=.nan", "stages.0.task.terms.1.weight: Input should be a finite number"),
        ("terms.1.weight=-1", "stages.0.task.terms.1.weight: Input should be greater than or equal to 0"),
        ("terms.0.temperature=0", "stages.0.task.terms.0.temperature: Input should be greater than 0"),
        ("terms.0.matryoshka=[0]", "stages.0.task.terms.0.matryoshka.0: Input should be greater"),
        ("terms.0.matryoshka=[]", "stages.0.task.terms.0: matryoshka: [] needs at least one length, each once"),
        ("terms.0.matryoshka=[64, 64]", "matryoshka: [64, 64] needs at least one length, each once"),
        ("terms.0.matryoshka_weights=[1]", "matryoshka_weights: 1 given for 2 lengths in matryoshka"),
        ("terms.2.name=gor", "stages.0.task: two terms are called 'gor' in the log; give one of them a name"),
        ("terms=[]", "stages.0.task.terms: "),
        ("terms=[{kind: gor, weight: 0}]", "stages.0.task: all terms have weight 0"),
        (
            "hard_negatives=0",
            "nce.hardness weighs a row's own hard negatives, hard_negatives is 0; set it to 1 or more",
        ),
    ],
)
def test_a_wrong_term_is_one_line_with_its_place(override: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_recipe(TEXT, "my.yaml", [f"stages.0.task.{override}"])
    assert expected in str(caught.value)
