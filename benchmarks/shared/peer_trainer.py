"""The peer of `speed/training_speed.py`: sentence-transformers' own trainer, set up to train the same thing.

Same base and attention mode, same LoRA with the same initial values, same rows in the same order, same truncation.
Everything else is its own: tokenising in its collator (on a GPU in loader processes), padding to the longest text of a
column, candidates of equal kind merged into one forward, its loss, its optimizer (fused AdamW), transformers' training
loop.
"""

import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset
from peft import LoraConfig
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from torch.utils.data import SequentialSampler
from transformers import TrainerCallback

from gemma4vec.data.batching.batches import RowBatch
from gemma4vec.errors import InputError
from gemma4vec.machine.describe import usable_cores
from gemma4vec.machine.device import choose_device
from gemma4vec.model.backbone.architectures import find_architecture, text_config
from gemma4vec.model.encoder.build import EmbeddingModel
from gemma4vec.model.readout import READOUTS
from gemma4vec.recipe.schema import Recipe
from gemma4vec.recipe.terms import Nce
from gemma4vec.text.prompts import Document

# bf16: weights and adapters bf16. mixed: bf16 weights, fp32 adapters, autocast. fp32: all of it.
Precision = Literal["bf16", "mixed", "fp32"]


@dataclass
class Peer:
    """A trainer that is ready to run, with its loss, its rows, and the real tokens of each of its batches."""

    trainer: SentenceTransformerTrainer
    loss: MultipleNegativesRankingLoss | CachedMultipleNegativesRankingLoss
    dataset: Dataset
    tokens: list[int]
    _losses: list[torch.Tensor] = field(default_factory=list)

    def train(self, clock: "BlockClock") -> None:
        """Run all of its training, timed by `clock`."""
        # A hook, because the trainer itself sums losses in their own type, which is bf16.
        self.loss.register_forward_hook(lambda module, inputs, loss: self._losses.append(loss.detach()))
        self.trainer.add_callback(clock)
        self.trainer.train()

    def losses(self) -> list[float]:
        """Of each training step so far."""
        return [float(loss) for loss in self._losses]

    def loss_of(self, number: int) -> float:
        """Loss of its batch `number` (from 0) with the weights as they are, as its training step computes it."""
        size = self.trainer.args.per_device_train_batch_size
        rows = [self.dataset[i] for i in range(number * size, (number + 1) * size)]
        inputs = self.trainer._prepare_inputs(self.trainer.data_collator(rows))
        self.loss.train()
        with torch.no_grad(), self.trainer.compute_loss_context_manager():
            loss = self.trainer.compute_loss(self.trainer.model, inputs)
        assert isinstance(loss, torch.Tensor)
        return float(loss)


@dataclass
class BlockClock(TrainerCallback):
    """Times the trainer in blocks of steps; between two blocks the clock stands and `between` may do as it likes.

    A block runs from one step's end to another's, so that loading and tokenising its batches count.

    Attributes:
        warm_up: steps before the first block.
        steps: steps of a block.
        between: called before each block with its number, from 0.
        warm_up_seconds: of each step before the first block.
        seconds: of each block.
    """

    warm_up: int
    steps: int
    blocks: int
    between: Callable[[int], None]
    warm_up_seconds: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    _started: float = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._started = read_clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        done = state.global_step - self.warm_up
        if done > 0 and done % self.steps:
            return
        taken = read_clock() - self._started
        (self.seconds if done > 0 else self.warm_up_seconds).append(taken)
        if done >= 0 and done // self.steps < self.blocks:
            self.between(done // self.steps)
        self._started = read_clock()


def read_clock() -> float:
    """Seconds, after the GPU (where there is one) has done all that it was given."""
    if choose_device().name == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def loader_processes() -> int:
    """Processes that make the peer's batches: none on a CPU, where they would compete with the training for cores."""
    return min(4, usable_cores() // 4) if choose_device().name == "cuda" else 0


def build_peer(
    recipe: Recipe,
    base: Path,
    built: EmbeddingModel,
    drawn: Sequence[RowBatch],
    folder: Path,
    *,
    precision: Precision,
    max_steps: int,
    compiled: bool = False,
    cached_rows: int | None = None,
) -> Peer:
    """The peer's trainer for the first stage of `recipe`, with initial adapters equal to those in `built`.

    With `cached_rows` its loss is the one with GradCache, in micro-batches of so many texts.

    Raises:
        InputError: the recipe asks for something that the peer has no equal of.
    """
    _check_comparable(recipe)
    stage = recipe.stages[0]
    model = _model(recipe, base, built, folder, precision)
    scale = 1.0 / stage.task.temperature
    loss: MultipleNegativesRankingLoss | CachedMultipleNegativesRankingLoss
    if cached_rows is None:
        loss = MultipleNegativesRankingLoss(model, scale=scale)
    else:
        loss = CachedMultipleNegativesRankingLoss(model, scale=scale, mini_batch_size=cached_rows)
    dataset = Dataset.from_dict(_columns(built, drawn))
    optimizer = stage.optimizer
    precision_of_products = torch.backends.fp32_precision
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder / "trainer"),
        max_steps=max_steps,
        per_device_train_batch_size=stage.batch.rows,
        learning_rate=optimizer.learning_rate,
        weight_decay=optimizer.weight_decay,
        adam_beta1=optimizer.betas[0],
        adam_beta2=optimizer.betas[1],
        max_grad_norm=optimizer.clip or 0.0,
        warmup_steps=optimizer.warmup_steps,
        lr_scheduler_type=optimizer.schedule,
        bf16=precision == "mixed",
        gradient_checkpointing=stage.layout.gradient_checkpointing is not False,
        torch_compile=compiled,
        # Routes columns to the limits of queries and documents; it does so without a Router module too.
        router_mapping={name: "query" if name == "query" else "document" for name in dataset.column_names},
        batch_sampler=_in_order,
        dataloader_drop_last=True,
        dataloader_num_workers=loader_processes(),
        dataloader_pin_memory=choose_device().name == "cuda",
        use_cpu=choose_device().name == "cpu",
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=recipe.seed,
    )
    # To compile it they turn TF32 on for the whole process, and our compiled layers would be compiled anew for that.
    torch.backends.fp32_precision = precision_of_products
    trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=dataset, loss=loss)
    return Peer(trainer, loss, dataset, list(_tokens(trainer, dataset)))


def _check_comparable(recipe: Recipe) -> None:
    stage = recipe.stages[0]
    unequal = {
        "model.lora must be set": recipe.model.lora is None,
        "model.head must be null": recipe.model.head is not None,
        "model.readout must be one that sentence-transformers has": (
            READOUTS[recipe.model.readout.name].sentence_transformers is None
        ),
        "model.readout.pool_prompt must be true": not getattr(recipe.model.readout, "pool_prompt", True),
        "batch.accumulate must be 1": stage.batch.accumulate != 1,
        "task.share_hard_negatives must be true": not stage.task.share_hard_negatives,
        "task.terms must be [{kind: nce, hardness: 0}]": stage.task.terms != (Nce(hardness=0.0),),
    }
    for reason, violated in unequal.items():
        if violated:
            raise InputError(f"training_speed compares like with like only: {reason}; change it with --set")


def _model(
    recipe: Recipe, base: Path, built: EmbeddingModel, folder: Path, precision: Precision
) -> SentenceTransformer:
    """Base, pooling and adapters as sentence-transformers and peft put them together."""
    stage, lora = recipe.stages[0], recipe.model.lora
    assert lora is not None
    limit = recipe.model.max_tokens
    transformer = Transformer(
        str(_with_attention(base, recipe, folder)),
        model_kwargs={
            "dtype": torch.float32 if precision == "fp32" else torch.bfloat16,
            "attn_implementation": "sdpa",
        },
        max_seq_length=limit,
        query_length=min(stage.batch.query_tokens or limit, limit),
        document_length=min(stage.batch.document_tokens or limit, limit),
    )
    transformer.processor = copy.deepcopy(built.tokenizer.hf_tokenizer)
    pooling = Pooling(
        built.encoder.backbone.hidden_size, pooling_mode=READOUTS[recipe.model.readout.name].sentence_transformers
    )
    model = SentenceTransformer(modules=[transformer, pooling], device=choose_device().name)
    adapted = {_place(name).split(".lora_")[0] for name in built.trainable()}
    model.add_adapter(
        LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,  # type: ignore[arg-type]  # it is only ever divided
            lora_dropout=lora.dropout,
            target_modules=sorted(adapted),
            bias="none",
        )
    )
    _copy_adapters(built, model, torch.bfloat16 if precision == "bf16" else torch.float32)
    return model


def _with_attention(base: Path, recipe: Recipe, folder: Path) -> Path:
    """A folder that is the base but for the attention mode in its config, which has to be there at load."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    causal = recipe.model.attention == "causal"
    architecture = find_architecture(text_config(base), causal=causal, allow_untested=recipe.model.allow_untested)
    changed = folder / "base"
    if not changed.exists():
        changed.mkdir(parents=True)
        for file in base.iterdir():
            if file.name != "config.json":
                (changed / file.name).symlink_to(file.resolve())
        config |= (architecture.causal if causal else architecture.bidirectional) or {}
        (changed / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return changed


def _copy_adapters(built: EmbeddingModel, model: SentenceTransformer, dtype: torch.dtype) -> None:
    """Give the peer our initial adapters: the two then start from the same point.

    Raises:
        InputError: the two do not train the same parameters.
    """
    ours = {_place(name): parameter for name, parameter in built.trainable().items()}
    theirs = {_place(name): parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if {name: p.shape for name, p in ours.items()} != {name: p.shape for name, p in theirs.items()}:
        odd = sorted(set(ours) ^ set(theirs))
        raise InputError(f"the peer trains other parameters: {len(theirs)} for {len(ours)}, first {odd[:1]}")
    for name, parameter in theirs.items():
        parameter.data = ours[name].detach().to(parameter.device, dtype, copy=True)


def _place(name: str) -> str:
    """`layers.3.mlp.up_proj.lora_A.default.weight`, whatever it is wrapped in."""
    return name[name.index("layers.") :]


def _columns(built: EmbeddingModel, drawn: Sequence[RowBatch]) -> Mapping[str, list[str]]:
    """Columns as the loss wants them, prompts in front already: it is spared that work."""
    prompts = built.prompts

    def document(found: Document) -> str:
        return "".join(prompts.for_document(found))

    columns = {
        "query": ["".join(prompts.for_query(query)) for batch in drawn for query in batch.queries],
        "positive": [document(found) for batch in drawn for found in batch.positives],
    }
    for k in range(len(drawn[0].negatives[0])):
        columns[f"negative_{k + 1}"] = [document(found[k]) for batch in drawn for found in batch.negatives]
    return columns


def _in_order(dataset: Dataset, **settings: Any) -> DefaultBatchSampler:
    """Rows as they stand: they were drawn as our side draws them."""
    return DefaultBatchSampler(SequentialSampler(dataset), **settings)


def _tokens(trainer: SentenceTransformerTrainer, dataset: Dataset) -> Iterator[int]:
    """Real tokens of each batch, from its own collator's attention masks, counted while no clock runs."""
    for batch in trainer._build_dataloader(dataset, trainer.args.train_batch_size, dataset_kind="train"):
        yield sum(int(value.sum()) for name, value in batch.items() if name.endswith("attention_mask"))
