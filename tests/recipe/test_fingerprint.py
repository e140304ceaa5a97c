"""`recipe_id` changes with everything that defines the method, and with nothing else."""

import json

import pytest
from pydantic import BaseModel

from gemma4vec.files import sha256_text
from gemma4vec.recipe.load import load_recipe, parse_recipe
from gemma4vec.recipe.recorded.fingerprint import method, recipe_id
from gemma4vec.recipe.schema import Clusters, FastPaths, Recipe
from gemma4vec.recipe.sources import FIRST_KEYS, KINDS, Columns
from gemma4vec.recipe.stop_rule import Claim, StopRule

TEXT = """
name: small
stages:
  - data: [{name: pairs, path: pairs.jsonl}]
    budget: {steps: 10}
"""

SAME = [
    "seed=3",
    "name=other",
    "hypothesis=it helps",
    "claim={slice: x <= 1, suite: s, suite_fingerprint: f, smallest_effect: 0.1}",
    "stages.0.name=first",
    "stages.0.evaluation.every_steps=5",
    "stages.0.evaluation.at_shares=[0.5]",
    "stages.0.evaluation.suite=folder",
    "stages.0.evaluation.max_queries=3",
    "stages.0.evaluation.max_documents=3",
    "stages.0.evaluation.checkpoint_seconds=1",
    "stages.0.evaluation.snapshot_at_shares=[0.5]",
    "stages.0.evaluation.snapshot_every_steps=7",
    "stages.0.evaluation={every_steps: 5, background: true}",
]

DIFFERENT = [
    "stages.0.quantize.scheme=q4_0",
    "model.base=bundled:gemma-3-270m",
    "model.attention=causal",
    "model.readout.name=last_token",
    "model.readout.pool_prompt=false",
    "model.head.widths=[8]",
    "model.head.widths=[8, 8]",
    "model.head={widths: [8], bias: true}",
    *(
        f"model.readout={{name: {change}}}"
        for change in (
            "first_token",
            "weighted_mean",
            "attention",
            "attention, heads: 4",
            "latent_attention",
            "latent_attention, latents: 128",
            "latent_attention, heads: 4",
            "latent_attention, hidden_size: 64",
            "latent_attention, mlp: 2",
            "latent_attention, pool_prompt: true",
            "contextual_token",
            "contextual_token, encoder: other",
            "contextual_token, hidden_size: 64",
            "layer_mix",
            "layer_mix, normalize: false",
            "layer_mix, scale: false",
            "echo_delta",
            "echo_delta, join: concat",
            "echo_delta, delta: 0.25",
            "echo_delta, separator: x",
        )
    ),
    "model.layers=12",
    "model.lora=null",
    "model.lora.rank=8",
    "model.lora.alpha=8",
    "model.lora.dropout=0.5",
    "model.lora.modules=[q_proj]",
    "model.lora.last_layers=2",
    "model.lora.rslora=true",
    "model.lora.dora=true",
    "model={lora: null, train: full}",
    "model={lora: null, train: full, train_embeddings: false}",
    "model.prompts=none",
    "model.max_tokens=100",
    "model.dtype=fp32",
    "model.allow_untested=true",
    "stages.0.data.0.name=x",
    "stages.0.data.0.source=pycode",
    "stages.0.data.0.path=x",
    "stages.0.data.0.negatives=5",
    "stages.0.data.0.drop=x",
    "stages.0.data.0.repeat=x",
    "stages.0.data.0.max_rows=5",
    "stages.0.data.0.max_bad_share=0.5",
    *(
        f"stages.0.data.0={{name: pairs, path: pairs.jsonl, source: {change}}}"
        for change in (
            "beir, split: dev",
            "datasets, subset: x",
            "sqlite, pair_with_itself: true",
            "sqlite, pair_with_itself: true, table: x",
            "debian, language: de",
            "csv, encoding: cp1252",
            "documents",
            "documents, queries: x",
            "documents, pairs: [link]",
            "documents, sentences: 1",
        )
    ),
    "stages.0.data.0.weight=2",
    "stages.0.data.0.prompts=none",
    "stages.0.data.0={name: pairs, path: x, source: text, pair_with_itself: true}",
    "stages.0.mixture.temperature=2",
    "stages.0.mixture.one_source_batches=true",
    "stages.0.mixture.one_task_batches=true",
    "stages.0.task.temperature=0.1",
    "stages.0.task.hard_negatives=1",
    "stages.0.task.share_hard_negatives=false",
    "stages.0.task.learn_temperature={minimum: 0.01}",
    "stages.0.task.learn_temperature={maximum: 0.3}",
    "stages.0.task.learn_temperature={learning_rate: 0.1}",
    "stages.0.task={kind: masked_next_token}",
    "stages.0.task={kind: masked_next_token, mask_share: 0.3}",
    "stages.0.task={kind: masked_next_token, mask_token: x}",
    "stages.0.task={kind: masked_next_token, random_share: 0}",
    "stages.0.task={kind: masked_next_token, unchanged_share: 0}",
    "stages.0.task={kind: masked_next_token, texts: queries}",
    "stages.0.task={kind: ul2}",
    "stages.0.task={kind: ul2, mix: ul2r}",
    "stages.0.task={kind: ul2, mix: [{span: 3, share: 0.5}]}",
    "stages.0.task={kind: ul2, mix: [{span: 4, share: 0.5}]}",
    "stages.0.task={kind: ul2, mix: [{span: 4, share: 0.4}]}",
    "stages.0.task={kind: ul2, mix: [{span: 4, share: 0.4, weight: 2}]}",
    "stages.0.task={kind: ul2, mix: [{prefix: 0.5}]}",
    "stages.0.task={kind: ul2, decoder: {layers: 2}}",
    "stages.0.task={kind: ul2, decoder: {lora: {}}}",
    "stages.0.task={kind: ul2, decoder: {shared: true}}",
    "stages.0.task={kind: ul2, decoder: {learning_rate: 0.1}}",
    "stages.0.task={kind: ul2, sentinels: '<x{}>'}",
    "stages.0.task={kind: ul2, held_out: 0}",
    "stages.0.task={kind: ul2, texts: queries}",
    "stages.0.batch.rows=8",
    "stages.0.batch.accumulate=2",
    "stages.0.batch.group_rows=4",
    *(
        f"stages.0.batch={{group_rows: 8, clusters: {{{change}}}}}"
        for change in (
            "",
            "by: other",
            "by: self",
            "by: self, refresh: 5",
            "text: query",
            "text: positive",
            "count: 5",
            "across_sources: true",
        )
    ),
    "stages.0.batch.no_duplicates=true",
    "stages.0.batch.query_tokens=8",
    "stages.0.batch.document_tokens=8",
    "stages.0.batch.tokenize=once",
    "stages.0.layout.kind=padded",
    "stages.0.layout.grouping=separate",
    "stages.0.layout.row_tokens=100",
    "stages.0.layout.tokens_per_forward=100",
    "stages.0.layout.compile=true",
    "stages.0.layout.gradient_checkpointing=true",
    "stages.0.layout.gradient_checkpointing=selective",
    *(f"stages.0.layout.fast_paths.{name}=false" for name in FastPaths.model_fields),
    "stages.0.layout.grad_cache=true",
    "stages.0.layout.share_prefixes=false",
    "stages.0.optimizer.learning_rate=1",
    "stages.0.optimizer.readout_learning_rate=1",
    "stages.0.optimizer.weight_decay=1",
    "stages.0.optimizer.betas=[0.8, 0.9]",
    "stages.0.optimizer.clip=2",
    "stages.0.optimizer.warmup_steps=1",
    "stages.0.optimizer.schedule=linear",
    "stages.0.evaluation={every_steps: 5, export: best}",
    "stages.0.evaluation={every_steps: 6, export: best}",
    "stages.0.budget={steps: 11}",
    "stages.0.budget={rows: 10}",
    "stages.0.budget={tokens: 10}",
    "stages.0.budget={minutes: 10}",
    "stages.0.budget={minutes: 10, least_steps: 60}",
]

TERMS = {
    "kind": "gor",
    "weight": "2",
    "matryoshka": "[8]",
    "matryoshka_weights": "[2], matryoshka: [8]",
    "temperature": "0.2",
    "share_hard_negatives": "false",
    "hardness": "1",
    "query_query": "true",
    "passage_passage": "true",
    "symmetric": "true",
    "false_negative_margin": "0.1",
    "decoupled": "true",
    "source_weights": "{pairs: 0.5}",
}
_OTHER_TERMS = (
    "kind: gor, form: spread_out",
    "kind: reconstruct",
    "kind: reconstruct, weight: 0.2",
    "kind: reconstruct, prefix_tokens: 5",
    "kind: reconstruct, texts: documents",
    "kind: reconstruct, text_tokens: 8",
    "kind: reconstruct, prefix_learning_rate: 0.1",
    "kind: triplet",
    "kind: triplet, margin: 0.3",
    "kind: triplet, distance: l2",
    "kind: self_contrast",
    "kind: self_contrast, texts: queries",
    "kind: matching, teacher: x",
    "kind: matching, vectors: x",
    "kind: matching, teacher: x, form: relational",
    "kind: matching, teacher: x, form: listwise",
    "kind: matching, teacher: x, form: listwise, teacher_temperature: 0.1",
    "kind: matching, teacher: x, distance: l2",
    "kind: matching, teacher: x, texts: [queries]",
    "kind: matching, teacher: x, projection_learning_rate: 0.1",
)
DIFFERENT += [
    f"stages.0.task={{hard_negatives: 1, terms: [{{{term}}}]}}"
    for term in (*(f"{'' if key == 'kind' else 'kind: nce, '}{key}: {TERMS[key]}" for key in TERMS), *_OTHER_TERMS)
]

STOP = "reference: bm25, smallest_effect: 0.01, at_shares: [0.5]"
STOPS = [STOP, STOP.replace("bm25", "other"), STOP.replace("0.01", "-0.01"), STOP.replace("0.5", "0.25, 0.5")]
STOPS += [STOP.replace("at_shares: [0.5]", "at_steps: [4]"), f"{STOP}, metric: map", f"{STOP}, confidence: 0.9"]
STOPS += [f"{STOP.replace('bm25', 'other')}, reference_at: same_place"]
# What decides when training ends is of the method; so is what it looks at.
DIFFERENT += [f"stages.0.evaluation.stop={{{stop}}}" for stop in STOPS]
DIFFERENT += [
    f"stages.0.evaluation={{stop: {{{STOP}}}, {key}}}" for key in ("suite: x", "max_queries: 3", "max_documents: 3")
]

COLUMNS = ["query: q, pos: p", "query: q, pos: x", "query: x, pos: p", "query: q, pos: p, neg: n", "text: q"]
COLUMNS += [f"query: q, pos: p, {name}: x" for name in ("title", "task", "group")]
DIFFERENT += [
    f"stages.0={{data: [{{name: pairs, path: x, source: csv, columns: {{{columns}}}, "
    f"pair_with_itself: {columns.startswith('text')}}}], budget: {{steps: 10}}}}"
    for columns in COLUMNS
]

PLAIN = recipe_id(parse_recipe(TEXT, "text"))


def leaves(part: type[BaseModel], path: str = "") -> set[str]:
    """`model.lora.rank` and so on: every value that a recipe can hold (index 0 of its lists)."""
    found: set[str] = set()
    for name, field in part.model_fields.items():
        here = f"{path}{name}"
        below = part_in(field.annotation)
        inside_list = here in ("stages", "stages.0.data", "stages.0.task.terms")
        found |= leaves(below, f"{here}.0." if inside_list else f"{here}.") if below else {here}
    return found


def part_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((p for a in getattr(annotation, "__args__", ()) if (p := part_in(a))), None)


@pytest.mark.parametrize("change", SAME)
def test_what_only_names_or_watches_a_run_does_not_count(change: str) -> None:
    assert recipe_id(parse_recipe(TEXT, "text", [change])) == PLAIN


def test_everything_else_counts_and_no_two_changes_look_alike() -> None:
    found = {change: recipe_id(parse_recipe(TEXT, "text", [change])) for change in DIFFERENT}
    assert PLAIN not in found.values()
    assert len(set(found.values())) == len(found)


def test_a_start_counts_and_none_changes_nothing() -> None:
    recipe = parse_recipe(TEXT, "text")
    started = recipe.model_copy(update={"model": recipe.model.model_copy(update={"start": "runs/first/model"})})
    assert recipe_id(recipe) == PLAIN != recipe_id(started)


def test_every_field_of_the_schema_is_tried_above() -> None:
    tried = {change.partition("=")[0] for change in SAME + DIFFERENT}
    tried |= {f"claim.{key}" for key in Claim.model_fields}
    tried |= {"model.start", "model.train", "model.train_embeddings", "stages.0.evaluation.export"}
    tried |= {"stages.0.budget." + name for name in ("steps", "rows", "tokens", "minutes", "least_steps")}
    tried |= {f"stages.0.task.terms.0.{key}" for key in (*TERMS, "name")}  # the name: see test_terms
    tried |= {"model.head.bias", "model.readout.name", "stages.0.data.0.pair_with_itself"}  # with others of their part
    tried |= {f"stages.0.data.0.{key}" for key in FIRST_KEYS}
    tried |= {f"stages.0.evaluation.stop.{key}" for key in StopRule.model_fields} | {"stages.0.evaluation.background"}
    tried |= {f"stages.0.data.0.columns.{key}" for key in Columns.model_fields}
    tried |= {f"stages.0.batch.clusters.{key}" for key in Clusters.model_fields}
    tried |= {f"stages.0.task.learn_temperature.{key}" for key in ("minimum", "maximum", "learning_rate")}
    assert leaves(Recipe) - tried == {"stages.0.task.kind"}  # has one value only


def test_every_key_of_every_kind_of_source_is_tried() -> None:
    keys = {key for kind in KINDS.values() for key in kind.model_fields} - {"source", "name"}
    untried = [key for key in keys if not any(f"{key}: " in change or f"0.{key}=" in change for change in DIFFERENT)]
    # A later key has a default of its own, and is in ADDED_LATER unless its kind came with it.
    assert not untried and keys == {*FIRST_KEYS, "repeat", "queries", "pairs", "sentences"}


def test_it_does_not_depend_on_how_the_recipe_is_written() -> None:
    spelled_out = TEXT.replace(
        "{steps: 10}", "{steps: 10, rows: null}\n    batch: {rows: 32}\n    task: {temperature: 5e-2}"
    )
    assert recipe_id(parse_recipe(spelled_out, "text")) == PLAIN
    assert len(PLAIN) == 12 and int(PLAIN, 16) >= 0
    assert "seed" not in method(parse_recipe(TEXT, "text"))


def test_a_key_that_came_later_counts_only_where_it_changes_something() -> None:
    later = {
        "model.max_tokens": 512,
        "stages.*.batch.tokenize": "x",
        "stages.*.data.*.weight": None,
        "model.no.such": 1,
    }

    def named(*changes: str) -> str:
        return recipe_id(parse_recipe(TEXT, "text", changes), later)

    before = method(parse_recipe(TEXT, "text"))
    del before["stages"][0]["data"][0]["weight"]
    del before["model"]["max_tokens"]
    assert named() == sha256_text(json.dumps(before, sort_keys=True))[:12] != PLAIN
    assert len({named(), named("stages.0.data.0.weight=2"), named("model.max_tokens=100")}) == 3


def test_a_method_keeps_its_name_in_later_releases() -> None:
    """A failure here says that every frozen recipe and every family of seeds of older runs is lost.

    Was a key added, and with its default everything stays as it was? Then it belongs into `ADDED_LATER`. Does a recipe
    that says nothing more than before now do something else (a changed default)? Then it is another method: write down
    its new name.
    """
    assert recipe_id(parse_recipe(TEXT, "text")) == "09b695a4e96e"
    shipped = load_recipe("gemma4vec/causal_last_token_native_dim")
    assert recipe_id(shipped) == "52621c164f68"
