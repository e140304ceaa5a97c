"""Tasks of mteb (an optional extra), with a score for every item: retrieval, STS, classification, clustering, pairs.

mteb loads the data at its pinned commit, asks our model for vectors, and saves predictions, which are read back
(`mteb_predictions`). Queries and documents get their usual prompts; texts of other tasks are encoded as queries.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from gemma4vec.data.suites.kinds import Kind, Role
from gemma4vec.errors import InputError, WorkError
from gemma4vec.evaluation.results.task_scores import Items, TaskScores
from gemma4vec.evaluation.scoring.dense_ranker import Vectors, check_unit
from gemma4vec.evaluation.scoring.mteb_predictions import (
    classification_items,
    clustering_items,
    pair_items,
    retrieval_items,
)
from gemma4vec.evaluation.scoring.ranking import Progress
from gemma4vec.files import sha256_text, temporary_folder
from gemma4vec.reading.json_values import load_foreign_json
from gemma4vec.text.prompts import Document
from gemma4vec.text.text_embedder import TextEmbedder

KINDS: dict[str, Kind] = {
    "Retrieval": "retrieval",
    "Reranking": "retrieval",
    "STS": "sts",
    "Classification": "classification",
    "Clustering": "clustering",
    "PairClassification": "pair-classification",
}
BATCH = 1024  # texts that mteb passes at a time; the model makes its own batches


@dataclass
class MtebSuite:
    """One task of mteb: one split, with all its languages (each a task of the result).

    Attributes: as of `RetrievalSuite`; `task` is mteb's own object.
    """

    name: str
    kind: Kind
    task: Any
    split: str
    role: Role | None = None
    metric: str | None = None
    source: dict[str, Any] | None = None
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the task, its data's commit, and the subsets that are evaluated."""
        assert self.source is not None
        return sha256_text("mteb", *(str(value) for value in self.source.values()), *self.subsets)

    def details(self) -> dict[str, Any]:
        """Nothing beyond what every suite has."""
        return {}

    @property
    def subsets(self) -> list[str]:
        """mteb's names of the subsets: languages, or `default`."""
        return [str(subset) for subset in self.task.hf_subsets]


def open_mteb(spec: str, role: Role | None = None) -> MtebSuite:
    """Open `TASK` or `TASK@split`; without a split: the test split, or the first one if there is none.

    Raises:
        InputError: mteb is not installed, no such task or split, or an unsupported type of task.
    """
    try:
        import mteb
    except ImportError as error:
        raise InputError("mteb is not installed; install it with: pip install 'gemma4vec[mteb]'") from error
    name, _, split = spec.partition("@")
    try:
        task = mteb.get_task(name)
    except KeyError as error:
        raise InputError(f"mteb has no task '{name}': {' '.join(str(error).split())[:200]}") from error
    return make_mteb_suite(task, split, role)


def make_mteb_suite(task: Any, split: str = "", role: Role | None = None) -> MtebSuite:
    """Make a suite of a task of mteb; arguments and errors as in `open_mteb`."""
    about = task.metadata
    if about.type not in KINDS:
        raise InputError(f"{about.name} is of type {about.type}; supported types: {', '.join(KINDS)}")
    splits = [str(one) for one in about.eval_splits]
    chosen = split or ("test" if "test" in splits else splits[0])
    if chosen not in splits:
        raise InputError(f"{about.name} has no split '{chosen}'; it has {', '.join(splits)}")
    task.filter_eval_splits([chosen])
    metric = None  # the kind's usual one; for retrieval mteb's main score if we have it
    if KINDS[about.type] == "retrieval":
        named = str(about.main_score).replace("_at_", "@")
        metric = named if re.fullmatch(r"(ndcg|mrr|recall|map)@[1-9][0-9]*", named) else None
    source = {
        "mteb": about.name,
        "dataset": about.dataset.get("path"),
        "revision": about.dataset.get("revision"),
        "split": chosen,
    }
    return MtebSuite(f"mteb-{about.name}", KINDS[about.type], task, chosen, role, metric, source)


class _Encoder:
    """A model behind mteb's encoder interface."""

    def __init__(self, model: TextEmbedder, progress: Progress):
        from mteb.models.model_meta import ModelMeta

        self.model, self.progress = model, progress
        name = f"gemma4vec/{re.sub('[^A-Za-z0-9_.-]+', '-', model.name)}"
        self.mteb_model_meta = ModelMeta.create_empty({"name": name, "revision": model.fingerprint})

    def encode(self, inputs: Any, *, prompt_type: Any = None, **_: Any) -> Vectors:
        """Return the vectors of the batches' texts, `[N, D]`."""
        role = getattr(prompt_type, "value", prompt_type)
        if role == "document":
            documents = [document for batch in inputs for document in _documents(batch)]
            vectors_ND = self.model.encode_document(documents, progress=partial(self.progress, "documents"))
            names = [document.text for document in documents]
        else:
            names = [text for batch in inputs for text in batch["text"]]
            vectors_ND = self.model.encode_query(names, progress=partial(self.progress, "texts"))
        check_unit(vectors_ND, names, f"vectors of {self.model.name}", self.model)
        return vectors_ND

    def similarity(self, first_ND: Any, second_MD: Any) -> Any:
        """Return inner products, `[N, M]`."""
        import torch

        return torch.as_tensor(np.asarray(first_ND)) @ torch.as_tensor(np.asarray(second_MD)).T

    def similarity_pairwise(self, first_ND: Any, second_ND: Any) -> Any:
        """Return inner products of rows with the same number, `[N]`."""
        import torch

        return torch.as_tensor(np.einsum("nd,nd->n", np.asarray(first_ND), np.asarray(second_ND)))


def _documents(batch: dict[str, Any]) -> list[Document]:
    """Return texts with their titles, if the batch separates them."""
    bodies = batch.get("body") or batch["text"]
    titles = batch.get("title") if batch.get("body") else None
    return [Document(body, title or None) for body, title in zip(bodies, titles or [None] * len(bodies), strict=True)]


def _score_mteb(
    model: TextEmbedder, suite: MtebSuite, *, metrics: Sequence[str], progress: Progress
) -> dict[str, TaskScores]:
    """Scores of every item, by subset.

    Raises:
        InputError: the data cannot be loaded. WorkError: vectors that mean nothing, or predictions that do not fit.
    """
    import mteb

    task, started = suite.task, time.perf_counter()
    try:
        if not task.data_loaded:
            task.load_data()
    except Exception as error:  # whatever the hub, the cache and a data set's own code raise
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"mteb cannot load the data of {task.metadata.name}: {reason}") from error
    with temporary_folder("mteb") as folder:
        result = mteb.evaluate(
            _Encoder(model, progress),
            task,
            cache=None,
            co2_tracker=False,
            prediction_folder=folder,
            show_progress_bar=False,
            encode_kwargs={"batch_size": BATCH, "show_progress_bar": False},
        )
        saved = load_foreign_json(folder / task.prediction_file_name)
    by_subset = {scores["hf_subset"]: scores for scores in result.task_results[0].scores[suite.split]}
    seconds = {"mteb": time.perf_counter() - started}
    scored: dict[str, TaskScores] = {}
    for number, (subset, scores) in enumerate(by_subset.items()):
        items = _items(suite, subset, saved.get(subset, {}).get(suite.split), scores, metrics)
        name = suite.name if len(by_subset) == 1 else f"{suite.name}-{subset}"
        quality = {"mteb": {"version": mteb.__version__, str(task.metadata.main_score): float(scores["main_score"])}}
        scored[name] = TaskScores(items, quality, {} if number else seconds)
    return scored


def _items(suite: MtebSuite, subset: str, saved: Any, scores: dict[str, Any], metrics: Sequence[str]) -> Items:
    """Return the scores of one subset's items from its predictions."""
    if suite.kind == "clustering":
        return clustering_items(scores)
    if saved is None:
        raise WorkError(f"mteb saved no predictions of {suite.name} ({subset}); evaluate again")
    task = suite.task
    by_split = task.dataset.get(subset, task.dataset)
    data = by_split[suite.split]
    if suite.kind == "retrieval":
        return retrieval_items(
            saved,
            data["relevant_docs"],
            list(dict.fromkeys([*metrics, suite.metric or "ndcg@10"])),
            exclude_identical_ids=bool(getattr(task, "ignore_identical_ids", False)),
        )
    if suite.kind == "sts":
        return pair_items(saved, data["score"])
    labels = data[task.label_column_name]
    if suite.kind == "pair-classification":
        return pair_items(saved, labels[0] if len(labels) == 1 else labels)
    return classification_items(saved, labels)
