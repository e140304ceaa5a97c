"""The recipe: one typed value that says everything about a run.

Every setting that changes the resulting vectors is a key here, never an environment variable. Unknown keys are errors
(see `recipe.load`). Lengths are in tokens, learning rates per optimizer step.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gemma4vec.reading.names import Name
from gemma4vec.recipe.batch import Batch as Batch
from gemma4vec.recipe.batch import Clusters as Clusters
from gemma4vec.recipe.batch import FastPaths as FastPaths
from gemma4vec.recipe.batch import Layout as Layout
from gemma4vec.recipe.batch import Quantize as Quantize
from gemma4vec.recipe.denoising import Ul2 as Ul2
from gemma4vec.recipe.inversion import Suggestion as Suggestion
from gemma4vec.recipe.inversion import VectorToText as VectorToText
from gemma4vec.recipe.lora import Lora as Lora
from gemma4vec.recipe.part import Part as Part
from gemma4vec.recipe.readouts import Head as Head
from gemma4vec.recipe.readouts import Mean
from gemma4vec.recipe.readouts import Readout as Readout
from gemma4vec.recipe.sources import Mixture as Mixture
from gemma4vec.recipe.sources import Source as Source
from gemma4vec.recipe.sources import check_mixture
from gemma4vec.recipe.sources import source_of as source_of
from gemma4vec.recipe.stop_rule import Claim as Claim
from gemma4vec.recipe.stop_rule import StopRule as StopRule
from gemma4vec.recipe.tasks import WRITERS as WRITERS
from gemma4vec.recipe.tasks import Contrast as Contrast
from gemma4vec.recipe.tasks import MaskedNextToken as MaskedNextToken
from gemma4vec.recipe.tasks import Task as Task


class Model(Part):
    """The base model and everything between a text and its vector."""

    base: str = Field("google/gemma-4-E2B-it", description="hub id, local folder or bundled:NAME")
    start: str | None = Field(
        None,
        description="a run or saved model to go on from: its weights, readout, head and prompts; null: the base alone",
    )
    attention: Literal["causal", "bidirectional"] = Field(
        "bidirectional", description="what a token sees: the tokens before it, or the whole text"
    )
    layers: int | None = Field(
        None, ge=1, description="take the base's first layers alone: smaller and faster; null: all of them"
    )
    readout: Readout = Field(
        Mean(), description="how token states become one vector (pooling); a bare name is enough, and so is `pooling`"
    )
    head: Head | None = Field(None, description="linear layers after the readout; null: none")
    lora: Lora | None = Field(Lora(), description="adapters on a frozen base; null: none, see `train`")
    train: Literal["frozen", "full"] = Field(
        "frozen", description="the base's own weights; `full`: train all of them, which needs `lora: null`"
    )
    train_embeddings: bool = Field(True, description="with `train: full`: train the token embeddings too")
    prompts: Literal["retrieval", "code_retrieval", "none"] | dict[Literal["query", "document"], str] = Field(
        "retrieval", description="text around queries and documents: a preset, or a template for each role"
    )
    max_tokens: int = Field(512, ge=4, description="longest text the model reads, prompt and special tokens included")
    dtype: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="type of the base's weights and activations; `auto`: what this machine computes well"
    )
    allow_untested: bool = Field(False, description="allow a model type whose attention modes were never verified")

    @model_validator(mode="before")
    @classmethod
    def _older_names(cls, tree: object) -> object:
        """What was written before readouts had parameters stays readable; a bare name is a readout."""
        if not isinstance(tree, dict):
            return tree
        tree = dict(tree)
        if "projection" in tree and "head" not in tree:
            width = tree.pop("projection")
            tree["head"] = None if width is None else {"widths": [width]}
        readout = tree.get("readout")
        if isinstance(readout, str):
            tree["readout"] = {"name": readout}
        if isinstance(readout, dict):
            settings: dict[str, object] = {"name": "mean", **readout}
            if settings["name"] == "last_token" and settings.get("pool_prompt") is True:
                del settings["pool_prompt"]  # had no effect there, but was written out
            tree["readout"] = settings
        return tree

    @model_validator(mode="after")
    def _one_way_to_train(self) -> "Model":
        if self.train == "full" and self.lora is not None:
            raise ValueError("train: full trains the base's own weights, lora keeps them frozen; set lora: null too")
        return self


class Optimizer(Part):
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) with linear warm-up, then decay."""

    learning_rate: float = Field(2e-4, gt=0, description="highest rate, reached after warm-up")
    readout_learning_rate: float | None = Field(
        None,
        gt=0,
        description="highest rate of the readout's own parameters, on the same schedule; null: `learning_rate`",
    )
    weight_decay: float = Field(0.01, ge=0, description="decoupled weight decay; learned temperatures have none")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.9, 0.999), description="decay rates of AdamW's two moments"
    )
    clip: float | None = Field(1.0, gt=0, description="largest norm of the gradient; null: no clipping")
    warmup_steps: int = Field(10, ge=0, description="steps over which the rate rises linearly")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "cosine", description="how the rate falls after warm-up, to 0 at the end"
    )


class Budget(Part):
    """How long to train: give exactly one of steps, rows, tokens and minutes."""

    steps: int | None = Field(None, ge=1, description="optimizer steps")
    rows: int | None = Field(None, ge=1, description="rows, repeated ones counted again")
    tokens: int | None = Field(
        None, ge=1, description="tokens without padding; converted to a number of steps after the first ones"
    )
    minutes: float | None = Field(
        None, gt=0, description="minutes of training; converted to a number of steps after the first ones"
    )
    least_steps: int | None = Field(
        None, ge=1, description="go on to this number of steps where the minutes give fewer, as on a busy machine"
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> "Budget":
        given = [name for name in ("steps", "rows", "tokens", "minutes") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"give exactly one of steps, rows, tokens, minutes (found {found})")
        if self.least_steps is not None and self.minutes is None:
            raise ValueError(f"least_steps belongs to a budget in minutes; this one is in {given[0]}")
        return self


class Evaluation(Part):
    """What is measured and saved during training. Not part of the method, unless it chooses the exported checkpoint."""

    every_steps: int | None = Field(
        None, ge=1, description="evaluate on `suite` after each such number of steps; null: never"
    )
    at_shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (), description="also evaluate after these shares of the steps, such as [0.5]"
    )
    snapshot_at_shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (),
        description="save the trained weights after these shares of the steps, for `eval --checkpoints` "
        "and `invert --step`",
    )
    snapshot_every_steps: int | None = Field(
        None, ge=1, description="save them after each such number of steps; null: never"
    )
    suite: str | None = Field(None, description="folder in BEIR's layout; null: the source's own dev suite")
    max_queries: int | None = Field(200, ge=1, description="evaluate on a fixed sample of this size; null: all")
    max_documents: int | None = Field(
        1000, ge=1, description="size of the corpus: judged documents first, then others in a fixed order; null: all"
    )
    checkpoint_seconds: float = Field(
        60.0, ge=0, description="shortest time between two saves of the last checkpoint, for `--resume`"
    )
    export: Literal["last", "best"] = Field("last", description="which checkpoint of the last stage becomes the model")
    stop: StopRule | None = Field(None, description="stop early if the model can no longer reach a reference")
    background: bool = Field(
        False, description="evaluate saved weights in a process of low priority, while training goes on"
    )

    @model_validator(mode="after")
    def _best_of_something(self) -> "Evaluation":
        if self.export == "best" and self.every_steps is None:
            raise ValueError("export: best needs every_steps; without evaluations there is no best checkpoint")
        return self

    @model_validator(mode="after")
    def _something_in_background(self) -> "Evaluation":
        if not self.background:
            return self
        if self.export == "best":
            raise ValueError(
                "background: its scores come too late for export: best; evaluate inside, or export the last"
            )
        if not (self.at_shares or self.every_steps or self.snapshot_at_shares or self.snapshot_every_steps):
            raise ValueError(
                "background: say when, by every_steps, at_shares, snapshot_every_steps or snapshot_at_shares"
            )
        return self


class Stage(Part):
    """One task on one mixture of data for one budget."""

    name: Name = Field("contrast", description="name in the log and of its folder of checkpoints")
    data: Annotated[tuple[Source, ...], Field(min_length=1)] = Field(description="sources of rows or texts")
    mixture: Mixture = Field(Mixture(), description="shares of the sources")
    task: Task = Field(Contrast(), description="what is learned from the data; without `kind`: contrast")
    batch: Batch = Field(Batch(), description="rows of a step, and lengths of texts")
    layout: Layout = Field(Layout(), description="how a batch is computed: speed and memory")
    quantize: Quantize | None = Field(
        None, description="train the weights to be quantized by a scheme; null: train them as they are"
    )
    optimizer: Optimizer = Field(Optimizer(), description="AdamW and its schedule")
    budget: Budget = Field(description="how long to train")
    evaluation: Evaluation = Field(Evaluation(), description="what is measured and saved on the way")

    @model_validator(mode="before")
    @classmethod
    def _contrast_where_nothing_is_said(cls, tree: object) -> object:
        if isinstance(tree, dict) and isinstance(tree.get("task"), dict):
            return tree | {"task": {"kind": "contrast"} | tree["task"]}
        return tree

    @model_validator(mode="after")
    def _weights_of_sources(self) -> "Stage":
        names = [source.name for source in self.data]
        for number, term in enumerate(self.task.terms if isinstance(self.task, Contrast) else ()):
            if term.source_weights is None:
                continue
            unknown = next((name for name in term.source_weights if name not in names), None)
            if unknown is not None:
                raise ValueError(
                    f"task.terms.{number}.source_weights: no source is named {unknown!r}; there are {', '.join(names)}"
                )
            if len(names) > 1 and not term.row_by_row and not self.mixture.one_source_batches:
                raise ValueError(
                    f"task.terms.{number}.source_weights: {term.label} is of all pairs of a batch, not row by row, so "
                    "a batch of several sources has one weight; set mixture.one_source_batches=true"
                )
        if isinstance(self.task, Contrast):
            idle = next((name for name in names if not any(x.weight_in(name) for x in self.task.terms)), None)
            if idle is not None:
                raise ValueError(
                    f"task.terms: all terms have weight 0 in batches of source {idle!r}; give one a weight"
                )
        return self

    @model_validator(mode="after")
    def _looks_before_the_end(self) -> "Stage":
        rule, steps = self.evaluation.stop, self.budget.steps
        if self.budget.rows is not None:
            steps = max(1, round(self.budget.rows / (self.batch.rows * self.batch.accumulate)))
        if rule is not None and steps is not None and rule.steps(steps)[-1] >= steps:
            late = rule.grid[-1]
            raise ValueError(
                f"evaluation.stop: the look at {late:g} is not before the last of {steps} steps; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _softmax_for_grad_cache(self) -> "Stage":
        if self.layout.grad_cache is True and self.task.kind != "contrast":
            raise ValueError(
                f"layout.grad_cache=true is for contrast, {self.task.kind} has no softmax over rows; for less memory "
                "use a smaller batch with more batch.accumulate"
            )
        return self

    @model_validator(mode="after")
    def _vectors_of_quantized_weights(self) -> "Stage":
        if self.quantize is not None and self.task.kind != "contrast":
            raise ValueError(f"quantize: it is for contrast; {self.task.kind} also reads weights that are not saved")
        if self.quantize is not None and any(term.kind == "reconstruct" for term in getattr(self.task, "terms", ())):
            raise ValueError("quantize: the term reconstruct reads the base as it is; leave one of the two out")
        return self

    @model_validator(mode="after")
    def _rows_for_contrast(self) -> "Stage":
        check_mixture(self.data, self.mixture)
        if self.batch.clusters is not None and self.task.kind != "contrast":
            raise ValueError(
                f"batch.clusters: near rows are negatives of a contrast, and {self.task.kind} has none; leave it out"
            )
        if self.batch.tokenize == "once" and self.task.kind != "contrast":
            raise ValueError(f"batch.tokenize: once is for contrast; {self.task.kind} reads its texts each time")
        if self.batch.tokenize == "once" and isinstance(self.task, Contrast):
            taught = next((term for term in self.task.terms if term.kind == "matching"), None)
            if taught is not None:
                raise ValueError(f"batch.tokenize: once keeps no texts, and {taught.label}'s teacher reads them")
        plain = next((source for source in self.data if source.plain and not source.own_positives), None)
        if plain is not None and self.task.kind == "contrast":
            raise ValueError(
                f"source {plain.name!r} has plain texts, contrast needs rows; use source: jsonl, or set its "
                "pair_with_itself"
            )
        texts = next((source for source in self.data if source.plain), None)
        if texts is not None and self.task.kind == "suggestion":
            raise ValueError(
                f"source {texts.name!r} has plain texts, suggestion needs pairs; use what `gemma4vec fanout --pairs` "
                "writes"
            )
        return self


class Recipe(Part):
    """Everything about a run."""

    name: Name = Field(description="start of the run's id")
    model: Model = Field(Model(), description="base model, readout, and which weights are trained")
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)] = Field(description="trained one after the other")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="of initial weights, dropout and the order of rows")
    hypothesis: str = Field("", description="what should move, by how much, on what")
    claim: Claim | None = Field(None, description="what a remedy is to reach, for `inspect verify`; null: no claim")

    @model_validator(mode="after")
    def _adaptation_sees_both_ways(self) -> "Recipe":
        for number, stage in enumerate(self.stages):
            adapts = isinstance(stage.task, MaskedNextToken | Ul2)
            if adapts and self.model.attention == "causal":
                raise ValueError(
                    f"stages.{number}.task: {stage.task.kind} teaches bidirectional attention, model.attention is "
                    "causal; set model.attention=bidirectional, or leave this stage out"
                )
        return self

    @model_validator(mode="after")
    def _writer_alone(self) -> "Recipe":
        number = next((n for n, stage in enumerate(self.stages) if isinstance(stage.task, WRITERS)), None)
        if number is None:
            return self
        model, watched, kind = self.model, self.stages[number].evaluation, self.stages[number].task.kind
        made = "decoder" if kind == "vector_to_text" else "suggester"
        if len(self.stages) > 1:
            raise ValueError(f"stages.{number}.task: {kind} makes a {made}, no model to go on with; train alone")
        if model.attention != "causal":
            raise ValueError(f"model.attention: {kind} writes token by token; set model.attention=causal")
        if model.start is not None or model.head is not None or model.readout != Mean():
            key = "start" if model.start is not None else "head" if model.head is not None else "readout"
            raise ValueError(f"model.{key}: {kind} trains a {made}, which has none; leave it out")
        kept = watched.snapshot_at_shares or watched.snapshot_every_steps
        if watched.every_steps or watched.at_shares or watched.background:
            raise ValueError(f"evaluation: a {made} makes no vectors to be evaluated; its held-out loss is logged")
        if kept and kind == "suggestion":
            raise ValueError("evaluation: nothing reads a suggester's weights that are kept on the way; leave it out")
        return self

    @model_validator(mode="after")
    def _quantized_to_the_end(self) -> "Recipe":
        first = next((stage.quantize for stage in self.stages if stage.quantize is not None), None)
        begun = False
        for number, stage in enumerate(self.stages):
            begun = begun or stage.quantize is not None
            if begun and stage.quantize != first:
                raise ValueError(
                    f"stages.{number}.quantize: an earlier stage has another value; quantize the last stages of a "
                    "recipe, all by one scheme"
                )
        lora = self.model.lora
        if first is not None and lora is not None and (lora.dora or lora.dropout > 0):
            key = "dora" if lora.dora else "dropout"
            raise ValueError(
                f"model.lora.{key}: stages.*.quantize quantizes the merged weight W + sBA, which {key} does not have; "
                f"set model.lora.{key}={'false' if lora.dora else '0'}, or lora=null with train=full"
            )
        return self

    @model_validator(mode="after")
    def _compiled_once(self) -> "Recipe":
        for number, stage in enumerate(self.stages):
            if stage.layout.fast_paths != self.stages[0].layout.fast_paths:
                raise ValueError(
                    f"stages.{number}.layout.fast_paths: other than the first stage's; layers are made once for all "
                    "stages, so write the same for each"
                )
        return self
