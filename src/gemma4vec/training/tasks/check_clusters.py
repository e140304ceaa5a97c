"""Refuse clusters of rows that cannot be made, before weights are loaded."""

import logging
from pathlib import Path

from gemma4vec.data.loading.load_rows import TrainingData
from gemma4vec.data.rows.lazy_rows import as_lazy_rows
from gemma4vec.errors import InputError
from gemma4vec.model.inference.load import find_model_folder
from gemma4vec.recipe import schema
from gemma4vec.recipe.batch import SELF
from gemma4vec.text.pretokenized import PretokenizedText
from gemma4vec.training.engine.base_files import base_files

logger = logging.getLogger(__name__)


def check_cluster_model(stage: schema.Stage, where: str) -> None:
    """Refuse a clustering model that does not exist; only its small files are read.

    Raises:
        InputError: one line that begins with the recipe's key.
    """
    clusters = stage.batch.clusters
    if clusters is None or clusters.by == SELF:
        return
    key = f"{where}.batch.clusters.by"
    try:
        if Path(clusters.by).is_dir():
            find_model_folder(clusters.by)
        else:
            with base_files(clusters.by, key):
                pass
    except InputError as error:
        raise InputError(str(error) if str(error).startswith(key) else f"{key}: {error}") from error


def check_clusters(stage: schema.Stage, loaded: TrainingData, where: str) -> None:
    """Refuse more clusters than the rows have groups, and rows without texts; warn of groups that no row has.

    Raises:
        InputError: one line that begins with the recipe's key.
    """
    if not isinstance(stage.task, schema.Contrast) or not len(loaded.rows):
        return
    clusters, group, rows = stage.batch.clusters, stage.batch.group_rows, len(loaded.rows)
    if clusters is None:
        if group > 1 and not as_lazy_rows(loaded.rows).names("group").names:
            logger.warning(
                f"{where}.batch.group_rows: no row has a group, so that batches are mixed; give rows a group, or set "
                "batch.clusters={}"
            )
        return
    if isinstance(clusters.count, int) and clusters.count * group > rows:
        raise InputError(
            f"{where}.batch.clusters.count: {clusters.count:,} clusters of {group} rows or more need "
            f"{clusters.count * group:,} rows, the data has {rows:,}; use at most {rows // group:,}, or auto"
        )
    tokens = next((name for name, facts in loaded.sources.items() if "largest_token" in facts), None)
    if tokens is not None or isinstance(loaded.rows[0].query, PretokenizedText):
        raise InputError(
            f"{where}.batch.clusters: source {tokens!r} has token ids, and rows are clustered by their texts; leave "
            "clusters out"
        )
