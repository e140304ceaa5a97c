"""Checks of a run's training data without being asked: what is small is checked before its scores are shown."""

import logging
from collections.abc import Sequence
from pathlib import Path

from gemma4vec.data.loading.resolve_names import sources_of_run
from gemma4vec.data.quality.check import check_sources, make_records
from gemma4vec.data.quality.contamination_record import (
    ContaminationRecord,
    read_record,
    read_records_of_source,
    sources_from_manifest,
    write_record,
)
from gemma4vec.data.quality.overlap import NEAR
from gemma4vec.data.suites.group import OneSuite
from gemma4vec.errors import Gemma4VecError
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.recipe.schema import Source

logger = logging.getLogger(__name__)

SMALL_BYTES = 64_000_000  # of compressed files: some hundred thousand rows, half a minute


def ensure_checked(run: RunFolder, suites: Sequence[OneSuite]) -> None:
    """Check the run's sources against those suites for which there is no stamp, where their files are small.

    Data that is gone, large or not readable stays unchecked, and so the mark on the scores says.
    """
    hashes = {str(source["name"]): key for key, source in sources_from_manifest(run.manifest).items()}
    if all(read_record(key, suite.fingerprint) is not None for key in hashes.values() for suite in suites):
        return None  # every evaluation asks: no text is read for nothing
    texts = [suite.texts() for suite in suites]
    try:
        sources = sources_of_run(run)
    except Gemma4VecError as error:
        return logger.warning(f"training data not checked: {error}")
    for source in sources:
        key = hashes.get(source.name)
        if key is None or not _small(source):
            continue
        missing = [suite for suite in texts if read_record(key, suite.fingerprint) is None]
        if not missing:
            continue
        try:
            for stamp in make_records(check_sources([source], missing), missing, NEAR):
                write_record(stamp)
        except Gemma4VecError as error:
            logger.warning(f"{source.name}: not checked against {', '.join(suite.name for suite in missing)}: {error}")
    return None


def _small(source: Source) -> bool:
    """Whether a source's file is there and soon read; what has to be searched for or downloaded is not."""
    path = Path(source.path or "").expanduser()
    return source.path is not None and path.is_file() and path.stat().st_size <= SMALL_BYTES


def read_overlapping_records(content_hashes: Sequence[str]) -> list[ContaminationRecord]:
    """Every stamp of these data that found something, by suite.

    Raises:
        InputError: a damaged stamp.
    """
    return [stamp for key in content_hashes for stamp in read_records_of_source(key) if stamp.overlaps]
