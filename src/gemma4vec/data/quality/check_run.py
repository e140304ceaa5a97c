"""Check a run's training data automatically before its scores are shown, if the data is small."""

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

SMALL_BYTES = 64_000_000  # size of a file, possibly compressed: some hundred thousand rows, half a minute


def ensure_checked(run: RunFolder, suites: Sequence[OneSuite]) -> None:
    """Check the run's sources against suites for which they have no record yet.

    Only small files are checked. Missing, large and unreadable data stays unchecked; the mark on the scores says so.
    """
    hashes = {str(source["name"]): key for key, source in sources_from_manifest(run.manifest).items()}
    if all(read_record(key, suite.fingerprint) is not None for key in hashes.values() for suite in suites):
        return None  # every evaluation calls this: read no text without need
    texts = [suite.texts() for suite in suites]
    try:
        sources = sources_of_run(run)
    except Gemma4VecError as error:
        return logger.warning(f"training data not checked: {error}")
    for source in sources:
        key = hashes.get(source.name)
        if key is None or not _is_small(source):
            continue
        missing = [suite for suite in texts if read_record(key, suite.fingerprint) is None]
        if not missing:
            continue
        try:
            for record in make_records(check_sources([source], missing), missing, NEAR):
                write_record(record)
        except Gemma4VecError as error:
            logger.warning(f"{source.name}: not checked against {', '.join(suite.name for suite in missing)}: {error}")
    return None


def _is_small(source: Source) -> bool:
    """Return whether a source is a small local file; sources to be searched for or downloaded are not."""
    path = Path(source.path or "").expanduser()
    return source.path is not None and path.is_file() and path.stat().st_size <= SMALL_BYTES


def read_overlapping_records(content_hashes: Sequence[str]) -> list[ContaminationRecord]:
    """Return the records of these sources that found an overlap, ordered by suite for each source.

    Raises:
        InputError: a record is damaged.
    """
    return [record for key in content_hashes for record in read_records_of_source(key) if record.overlaps]
