"""A whole training run: from a recipe to a run folder with a trained, merged model."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gemma4vec.data.loading.load_rows import TrainingData
from gemma4vec.errors import InputError
from gemma4vec.evaluation.planning.power_forecast import forecast_power
from gemma4vec.evaluation.scoring.evaluate import evaluate
from gemma4vec.evaluation.scoring.memory_check import check_suite_memory
from gemma4vec.evaluation.scoring.metrics import DEPTH
from gemma4vec.files import check_writable, home, sha256_text
from gemma4vec.ledger.environment import environment
from gemma4vec.ledger.recording import record_rule_stop, record_run
from gemma4vec.ledger.records import find_parents
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.ledger.run_recipe import STARTED_IN, read_recipe
from gemma4vec.machine.device import choose_device
from gemma4vec.machine.dtype import choose_dtype
from gemma4vec.model.adapters.fake_quantize import FakeQuantization
from gemma4vec.model.backbone.lm_head import load_head
from gemma4vec.model.bases.resolve import ResolvedBase
from gemma4vec.model.encoder.build import EmbeddingModel, build
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.save.quantization import Quantization
from gemma4vec.model.save.read_model import read_settings
from gemma4vec.model.save.write_model import save_model
from gemma4vec.recipe.load import dump_recipe
from gemma4vec.recipe.recorded.fingerprint import recipe_id
from gemma4vec.recipe.schema import WRITERS, Evaluation, Recipe
from gemma4vec.training.batches.row_clusters import StageClusters, stage_clusters
from gemma4vec.training.engine.checkpoint import Progress, latest_checkpoint, read_progress, trained_weights
from gemma4vec.training.engine.distributed import FollowedRun, World, leave_world, name_lost_processes, when_lost
from gemma4vec.training.engine.made_from import Parts, check_parts, own_parts, parts_to_save
from gemma4vec.training.engine.process_memory import peak_memory_bytes, release_memory
from gemma4vec.training.engine.step_bar import StepBar
from gemma4vec.training.estimate.step_record import store_steps
from gemma4vec.training.job import STOPPED_BY, Job
from gemma4vec.training.loop import resume_command, train_stage
from gemma4vec.training.monitoring.background_eval import BackgroundEvaluation, check_background, note_dev_suite
from gemma4vec.training.monitoring.dev_suite import needed_dev_folder, open_dev_suite
from gemma4vec.training.monitoring.stop_rule import StopRuleMonitor
from gemma4vec.training.monitoring.weight_snapshots import checkpoint_identity, checkpoint_weights
from gemma4vec.training.outcome import FAILED, STARTED, note_that_it_goes_on, record_end, record_outcome
from gemma4vec.training.prepare_run import CheckedInputs, PreparedRun, prepare_run, vector_parts
from gemma4vec.training.processes.stop_signals import StopSignals
from gemma4vec.training.save_writer import Writer, save_writer, writer_of
from gemma4vec.training.stage import Evaluate, Stage, quantize_stage
from gemma4vec.training.tasks.make_task import data_seed, make_task

logger = logging.getLogger(__name__)


def start_run(recipe: Recipe, out: Path | None = None, job: Job | None = None) -> RunFolder:
    """Make the run folder of a recipe in `out` (default: the outputs' home); of several processes the first does.

    Args:
        job: what may go on with the run by itself; None: nothing.

    Raises:
        InputError: several processes train, and `out` is not the same folder for all of them.
    """
    world = World()
    world.check_shared(out or home())
    run = world.from_first(lambda: _make_run(recipe, out, job))
    return run if world.first else FollowedRun(run.path)


def find_job_run(job: Job, recipe: Recipe, out: Path | None = None) -> RunFolder | None:
    """Find the run that an earlier attempt of a job began; of several processes the first decides for all.

    Raises:
        InputError: that run has another recipe.
    """

    def find() -> tuple[RunFolder | None, str | None]:
        run = job.find_run(out or home())
        return run, run.recipe_text if run else None

    run, text = World().from_first(find)
    if run is not None and text != dump_recipe(recipe):
        raise InputError(f"the job {job.name} began {run.path} with another recipe; give this one another --job")
    return run


def _make_run(recipe: Recipe, out: Path | None, job: Job | None) -> RunFolder:
    run = RunFolder.create(
        out or home(),
        recipe.name,
        dump_recipe(recipe),
        recipe_id=recipe_id(recipe),
        seed=recipe.seed,
        hypothesis=recipe.hypothesis,
        status=STARTED,
        # The reference of a stop rule is not a parent: the run does not build on it.
        parents=find_parents(recipe.model_dump(mode="json", exclude={"stages": {"__all__": {"evaluation": {"stop"}}}})),
        environment=environment(),
        **{STARTED_IN: str(Path.cwd())},
        **({"claim": recipe.claim.model_dump(mode="json")} if recipe.claim is not None else {}),
        **(job.manifest_fields() if job else {}),
    )
    record_run(run)
    return run


def recipe_of(run: RunFolder) -> Recipe:
    """Read the recipe that a run was started with; see `ledger.run_recipe.read_recipe`."""
    return read_recipe(run)


class Trainer:
    """The model of a prepared run, and the steps that train, evaluate and save it. Making one loads the weights."""

    def __init__(self, prepared: PreparedRun, signals: StopSignals | None = None):
        self.prepared, self.signals = prepared, signals or StopSignals()
        self.run, self.recipe, self.base = prepared.run, prepared.recipe, prepared.base
        self.world = World()
        self.stages_done: list[Progress] = []
        self.background: BackgroundEvaluation | None = None
        self.quantization: FakeQuantization | None = None
        self.writer: Writer | None = None
        where = choose_device()
        self.device = where.name
        if where.reason:
            logger.info(f"device: {where.name} ({where.reason})")
        choice = choose_dtype(self.device, self.recipe.model.dtype)
        say = logger.warning if choice.slow else logger.info
        say(f"dtype: {str(choice.dtype).removeprefix('torch.')} ({choice.reason})")
        self.dtype = choice.dtype
        self.built: EmbeddingModel = build(
            self.recipe.model,
            self.base.path,
            dtype=choice.dtype,
            device=self.device,
            seed=self.recipe.seed,
            tokenizer=prepared.tokenizer,
        )
        if self.world.first:
            check_writable(self.run.path, self._bytes_to_write())
        note_that_it_goes_on(self.run)
        self.run.update_manifest(
            base={key: value for key, value in asdict(self.base).items() if key != "path"},
            dtype={"name": str(choice.dtype), "reason": choice.reason},
            parameters={
                "trainable": sum(p.numel() for p in self.built.trainable().values()),
                "total": sum(p.numel() for p in self.built.encoder.parameters()),
            },
        )

    def _bytes_to_write(self) -> int:
        """Bytes of two checkpoints, old and new (weights and two moments in fp32), and of the model."""
        trainable = sum(p.numel() for p in self.built.trainable().values())
        total = sum(p.numel() for p in self.built.encoder.parameters())
        return 2 * 12 * trainable + self.dtype.itemsize * total

    def embedder(self, name: str) -> Embedder:
        """Return an embedder of the model as it is now."""
        identity = sha256_text(self.run.run_id, name, str(id(self)))[:16]
        model = self.recipe.model
        return Embedder(self.built, name=name, fingerprint=identity, max_tokens=model.max_tokens)

    @property
    def stopped(self) -> Progress | None:
        """Where a stop rule ended the training; None if none did."""
        return next((progress for progress in self.stages_done if progress.stopped), None)

    def train_all(self) -> None:
        """Train the stages one after the other, until a stop rule ends the training."""
        for number in range(len(self.recipe.stages)):
            self.train(number)
            if self.stopped:
                break

    def train(self, number: int, evaluate: Evaluate | None = None) -> Progress:
        """Train stage `number`.

        Args:
            evaluate: replaces the evaluation on the recipe's suite, at the times that the recipe gives.
        """
        settings, loaded = self.recipe.stages[number], self.prepared.data[number]
        seed = self.recipe.seed + number
        self.quantization = self.quantization or quantize_stage(settings, self.built, self.base.path)
        task = make_task(
            settings,
            loaded,
            self.built,
            lambda: load_head(self.built.encoder.backbone, self.base.path, settings.task.kind),
            max_tokens=self.recipe.model.max_tokens,
            seed=data_seed(self.recipe, number),
            start=self.recipe.model.start,
        )
        self.writer = writer_of(task)
        stage = Stage(
            number,
            settings,
            task,
            self.built,
            self.run,
            evaluate or self._evaluator(settings.evaluation, loaded),
            StepBar("train"),
            previous_checkpoints=self._checkpoints(number - 1) if number else None,
            world=self.world,
            stop_rule=self._rule(number),
            signals=self.signals,
            quantization=self.quantization,
            clusters=self._clusters(number),
        )
        note_dev_suite(self.run, number, settings.evaluation, loaded.dev_suite)
        if settings.evaluation.background and self.world.first and self.background is None:
            check_background(self.run, number)  # otherwise its error would be in a log file
            self.background = BackgroundEvaluation(self.run)
        try:
            progress = train_stage(stage, seed)
        except KeyboardInterrupt:
            if self.background:
                self.background.end()
            raise
        self.stages_done.append(progress)
        if self.world.size == 1:  # several processes share a step, so it tells nothing of a step here
            compiled = self.built.encoder.backbone.compiled
            store_steps(self.run, self.recipe, number, self.base.path, loaded, self.device, self.dtype, compiled)
        if progress.stopped and self.world.first and not self.run.events("stopped"):
            record_rule_stop(self.run, progress.stopped)
            self.run.event("stopped", stage=number, step=progress.step, reason=progress.stopped)
        return progress

    def save(self) -> Path:
        """Write the merged model and the adapter, from full-precision weights. Return the model's folder.

        They are those of the last checkpoint of the last trained stage, or of its best one with `export: best`.
        """
        stopped = self.stopped
        number = stopped.stage if stopped else len(self.recipe.stages) - 1
        stage, folder = self.recipe.stages[number], self._checkpoints(number)
        wants_best = stage.evaluation.export == "best"
        checkpoint = folder / "best" if wants_best else latest_checkpoint(folder)
        if checkpoint is None or not checkpoint.is_dir():
            raise InputError(f"{self.run.path} has no checkpoint to export; continue it with --resume {self.run.path}")
        taken = read_progress(checkpoint)
        parts = own_parts(self.recipe, self.base)
        check_parts(self.run, parts)
        logger.info(f"writing the merged model of step {taken.step}" if wants_best else "writing the merged model")
        release_memory()
        live = self.quantization if not wants_best else None
        weights = self._save_writer(checkpoint, parts) or save_model(
            self.run.model,
            self.recipe,
            self.base,
            trained_weights(checkpoint),
            data=self.run.manifest.get("data", {}),
            made_from=parts_to_save(parts),
            name=self.run.run_id,
            checkpoint=f"the {stage.evaluation.export} checkpoint, step {taken.step} of stage {stage.name}",
            quantization=quantization_of_stage(self.recipe, number, self.base),
            evaluated=live.weights() if live is not None else None,
        )
        self.run.event(
            "finished",
            seconds=sum(progress.seconds for progress in self.stages_done),
            tokens=sum(progress.tokens for progress in self.stages_done),
            peak_memory_bytes=peak_memory_bytes(),
            exported={"checkpoint": stage.evaluation.export, "step": taken.step},
        )
        ended: dict[str, Any] = {"by": "budget"}
        if stopped:
            ended = {"by": "stop rule", "stage": number, "step": stopped.step, "reason": stopped.stopped}
        self.run.update_manifest(ended=ended, weights=weights)
        return self.run.model

    def _save_writer(self, checkpoint: Path, parts: Parts) -> str | None:
        """Write what a run trains in place of a model, and return its hash; None: it trains a model."""
        if not isinstance(self.recipe.stages[0].task, WRITERS):
            return None
        if self.writer is None:
            raise InputError(f"{self.run.path} trains no model; go on with it with --resume {self.run.path}")
        made_from = parts_to_save(parts | vector_parts(self.recipe))
        folder, name = self.run.model, self.run.run_id
        return save_writer(folder, self.recipe, self.base, self.writer, checkpoint, name=name, made_from=made_from)

    def _rule(self, number: int) -> StopRuleMonitor | None:
        ready = self.prepared.stop_rules[number]
        if ready:
            check_suite_memory(ready.suite, self.embedder("checkpoint"), DEPTH)
        return StopRuleMonitor(ready, number, self.run, self._checkpoint_embedder) if ready else None

    def _clusters(self, number: int) -> StageClusters | None:
        settings, loaded = self.recipe.stages[number], self.prepared.data[number]
        seed = data_seed(self.recipe, number)
        return stage_clusters(number, settings, loaded, self.run, seed, lambda: self.embedder("checkpoint"))

    def _checkpoint_embedder(self, name: str, weights: str) -> Embedder:
        """Return an embedder of the model as it is now, with the identity of a snapshot of its weights."""
        whole = checkpoint_weights(weights, self.base)
        identity = checkpoint_identity(whole, self.recipe, self.dtype)
        limit = self.recipe.model.max_tokens
        return Embedder(self.built, name=name, fingerprint=identity, weights=whole, max_tokens=limit)

    def _checkpoints(self, number: int) -> Path:
        return self.run.checkpoints / f"{number}-{self.recipe.stages[number].name}"

    def _evaluator(self, settings: Evaluation, loaded: TrainingData) -> Evaluate | None:
        folder = needed_dev_folder(settings, loaded.dev_suite, "evaluation")
        if folder is None:
            return None
        suite = open_dev_suite(folder, settings.max_queries, settings.max_documents, "evaluation.suite")
        check_suite_memory(suite, self.embedder("checkpoint"), DEPTH)
        logger.info(forecast_power(suite.name, suite.fingerprint, len(suite.queries)).sentence())

        def run_evaluation() -> tuple[float, dict[str, Any]]:
            result = evaluate(self.embedder("checkpoint"), suite, run=self.run)
            interval = result.interval("ndcg@10")
            fields = {"suite": suite.name, "ndcg@10": interval.mean, "low": interval.low, "high": interval.high}
            return interval.mean, fields

        return run_evaluation


def quantization_of_stage(recipe: Recipe, number: int, base: ResolvedBase) -> Quantization | None:
    """How the model of stage `number` is quantized; None: it is not."""
    settings = recipe.stages[number].quantize
    if settings is None:
        return None
    start = read_settings(base.path).get("name") if recipe.model.start is not None else None
    return Quantization(settings.scheme, str(start or base.name), base.weights, trained=True)


def train_run(run: RunFolder, recipe: Recipe | None = None, checked: CheckedInputs | None = None) -> Path:
    """Train all stages of a run, from wherever it stopped, and write its model. Return the model's folder.

    If several processes train (`training.engine.distributed`), the first one writes, and all return the same folder.

    Args:
        recipe: of a run that has just been started; None: it is read from the run's folder.
        checked: its base and rows, if they were checked before the run's folder was made.

    Raises:
        InputError: the recipe or its data cannot be used. WorkError: the work failed; what was finished is kept.
        Interrupted: SIGTERM or SIGUSR1 came; the run goes on from its last checkpoint.
    """
    world, signals = World(), StopSignals(resume_command(run))
    if not world.first:
        run = FollowedRun(run.path)
    world.check_shared(run.path)
    with signals.caught(), record_outcome(run), name_lost_processes(resume_command(run)):
        when_lost(lambda reason: record_end(run, FAILED, f"WorkError: {reason}"))
        if run.manifest.get(STOPPED_BY) is not None:
            run.update_manifest(**{STOPPED_BY: None})
        prepared = prepare_run(run, recipe or recipe_of(run), checked=checked)
        trainer = Trainer(prepared, signals)
        trainer.train_all()
        leave_world()  # saving needs one process
        model = trainer.save() if world.first else run.model
    if trainer.background:
        trainer.background.wait()
    return model
