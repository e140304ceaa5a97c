"""Every shipped recipe is estimated, trains, saves and opens; only base, data and sizes are made small for it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_model
import torch
import yaml
from asked import with_slow
from phase_files import write_phase_files
from shipped_names import SIX
from tiny_context import write_context
from tiny_gemma import save_tiny_run
from tiny_model import write_tiny
from tiny_run import rows

from gemma4vec.cli.dry_run import as_text, show_dry_run
from gemma4vec.data.rows.rows import Row, write_rows
from gemma4vec.errors import InputError
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.inverter.decoder_folder import open_decoder
from gemma4vec.model.suggester.suggester_folder import open_suggester
from gemma4vec.pipeline.matrix.plan import make_plan
from gemma4vec.recipe.find import SHIPPED, find_matrix, find_recipe, shipped_matrices, shipped_plans, shipped_recipes
from gemma4vec.recipe.load import load_recipe, parse_recipe
from gemma4vec.recipe.plans.matrix import load_matrix
from gemma4vec.recipe.schema import Recipe
from gemma4vec.training.run import start_run, train_run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base, a tiny second encoder, and rows with eight hard negatives each."""
    made = tmp_path_factory.mktemp("shipped")
    write_tiny(made / "base", "gemma3", layers=2)
    write_context(made / "context")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny_model.COMMON, "intermediate_size", 64)
        save_tiny_run(made / "start", attention="bidirectional", max_tokens=120)
    plain = rows()
    documents = [row.pos[0] for row in plain]
    with_negatives = [Row(row.query, row.pos, (documents[n + 1 :] + documents)[:8]) for n, row in enumerate(plain)]
    write_rows(made / "rows.jsonl", with_negatives)
    write_phase_files(made, plain)
    return made


def made_small(name: str, folder: Path) -> Recipe:
    """The recipe with a tiny base, two steps a stage, four rows a batch."""
    tree: dict[str, Any] = yaml.safe_load(find_recipe(name).read_text())
    tree["model"] |= {"dtype": "fp32", "max_tokens": 120}
    if name == "embeddinggemma/quantize":  # it starts from a trained model
        tree["model"]["start"] = str(folder / "start" / "run")
    else:
        tree["model"]["base"] = str(folder / "base")
    if tree["model"].get("readout", {}).get("name") == "contextual_token":
        tree["model"]["readout"]["encoder"] = str(folder / "context" / "encoder")
    for stage in tree["stages"]:
        if name.startswith("gemma_embed/"):
            point_at_own_files(stage, folder)
        else:
            stage["data"] = [{"name": "rows", "path": str(folder / "rows.jsonl")}]
        stage["batch"] = {"rows": 4}
        stage["layout"] |= {"row_tokens": 128, "tokens_per_forward": 512, "compile": False}
        stage["budget"] = {"steps": 2}
        if stage.get("task", {}).get("kind") == "ul2":  # characters of bytes that no text has
            stage["task"]["sentinels"] = [chr(256 + number) for number in range(32)]
    return parse_recipe(yaml.safe_dump(tree), name)


def point_at_own_files(stage: dict[str, Any], folder: Path) -> None:
    for source in stage["data"]:
        source["path"] = str(folder / source["path"])
    if "evaluation" in stage:
        stage["evaluation"]["suite"] = str(folder / stage["evaluation"]["suite"])
    if "embedder" in stage["task"]:
        stage["task"]["embedder"] = str(folder / "start" / "run")
    if "reading" in stage["task"]:  # the tiny tokenizer's tokens are bytes
        stage["task"]["reading"] = {"query_tokens": 32, "titles": 1, "title_tokens": 16}


# The finetunings of EmbeddingGemma differ in their data alone, which is exchanged here.
TWINS = ("embeddinggemma/finetune_code", "embeddinggemma/finetune_language")


@pytest.mark.parametrize("name", with_slow(shipped_recipes(), TWINS))
def test_it_is_estimated_trains_saves_and_opens(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = made_small(name, folder)
    show_dry_run(recipe, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert [stage["steps"] for stage in found["stages"]] == [2] * len(recipe.stages)
    wanted = [getattr(stage.task, "hard_negatives", 0) for stage in recipe.stages]
    assert [stage["hard_negatives"] for stage in found["stages"]] == wanted
    assert len(as_text(found).splitlines()) > 12
    run = start_run(recipe, tmp_path)
    model = train_run(run)
    assert [event["stage"] for event in run.events("stage_finished")] == list(range(len(recipe.stages)))
    if recipe.stages[0].task.kind == "vector_to_text":
        assert open_decoder(model, dtype=torch.float32, device="cpu").facts.encoder_name
        return
    if recipe.stages[0].task.kind == "suggestion":
        assert open_suggester(model, dtype=torch.float32, device="cpu").facts.queries
        return
    opened = Embedder.load(model, dtype="fp32")
    vectors = opened.encode_query(["read the file", "sort the tree"])
    assert vectors.shape == (2, opened.dimension) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert abs(float(vectors[0] @ vectors[1])) < 0.99999


def test_the_six_differ_in_readout_with_its_rate_attention_and_adaptation_alone() -> None:
    def shared(name: str) -> tuple[Any, ...]:
        recipe = load_recipe(f"gemma4vec/{name}", ["model.base=bundled:gemma-3-270m"])
        fixed = recipe.model.model_dump(exclude={"readout", "attention"})
        stage = recipe.stages[-1]
        optimizer = stage.optimizer.model_copy(update={"readout_learning_rate": None})
        return fixed, stage.model_copy(update={"optimizer": optimizer})

    assert recipe_names() >= {f"gemma4vec/{name}" for name in SIX}
    control = shared(SIX[0])
    assert all(shared(name) == control for name in SIX)
    assert load_recipe(SIX[0]).model.base == "google/gemma-4-E2B-it"
    bundle = load_recipe("nv_embed_bidirectional_latent_cross_attention_128_b64_k8")
    stage = bundle.stages[0]
    assert (stage.batch.rows, stage.task.hard_negatives, stage.layout.grouping) == (64, 8, "all_packed")  # type: ignore[union-attr]
    assert bundle.model.readout.latents == 128 and stage.layout.gradient_checkpointing  # type: ignore[union-attr]


def recipe_names() -> set[str]:
    return set(shipped_recipes())


def test_a_recipe_is_found_by_file_or_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_recipe("gemma4vec/echo_delta_causal") == find_recipe("echo_delta_causal")
    assert find_recipe("llm2vec/meta_llama_3_8b_instruct").is_file()
    monkeypatch.chdir(tmp_path)
    Path("echo_delta_causal").write_text("name: mine")  # a file goes first
    assert find_recipe("echo_delta_causal") == Path("echo_delta_causal")
    with pytest.raises(InputError, match=r"^no recipe 'echo_delta_casual': .*did you mean 'echo_delta_causal'\?"):
        load_recipe("echo_delta_casual")
    with pytest.raises(InputError, match=r"^cannot read the recipe missing\.yaml: No such file"):
        load_recipe("missing.yaml")


def test_the_package_holds_the_repositorys_recipes() -> None:
    tracked = {str(file.relative_to(ROOT / "recipes")) for file in (ROOT / "recipes").glob("*/*.yaml")}
    assert (
        tracked == {f"{name}.yaml" for name in (*shipped_recipes(), *shipped_matrices(), *shipped_plans())}
        and len(tracked) >= 11
    )
    assert SHIPPED.resolve() == (ROOT / "recipes").resolve() and not SHIPPED.is_symlink()


def test_a_matrix_plan_is_found_by_name_and_plans_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = find_matrix("recipes_270m")
    assert file == find_matrix("matrix/recipes_270m") == SHIPPED / "matrix" / "recipes_270m.yaml"
    plan = make_plan(load_matrix(file, ["variables.suites=/suites"]), file.parent)
    assert set(plan.variants) == set(SIX)
    assert all(variant.file.is_relative_to(SHIPPED.resolve()) for variant in plan.variants.values())
    # A plan is no recipe, and a recipe is no plan.
    assert not any("270m" in name for name in shipped_recipes())
    with pytest.raises(InputError, match=r"^no matrix plan 'recipes_270': .*did you mean 'recipes_270m'\?"):
        find_matrix("recipes_270")
    with pytest.raises(InputError, match=r"^no matrix plan 'echo_delta_causal'"):
        find_matrix("echo_delta_causal")


def test_recipes_of_other_papers_keep_plain_infonce() -> None:
    """None of them weighs hard negatives, so none takes the default of `nce`, which is EmbeddingGemma's."""
    for name in shipped_recipes():
        for stage in load_recipe(name).stages if not name.startswith("embeddinggemma/") else ():
            for term in getattr(stage.task, "terms", ()):
                assert term.kind != "nce" or term.hardness == 0.0, name
