"""An inspection's page in a narrow browser: `make browser`. It needs Debian's chromium alone."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from planted_suite import PlantedModel, planted_suite

from gemma4vec.evaluation.scoring.bm25_model import Bm25Model
from gemma4vec.inspection.inspect import inspect
from gemma4vec.inspection.inspected import Subject
from gemma4vec.report.inspect_page import write_inspect_page

pytestmark = pytest.mark.browser

CHROMIUM = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
NARROW, WIDE = 500, 1280  # chromium's windows are no narrower
MEASURE = """<script>
const all = [...document.querySelectorAll(".scroll")].map(one => [one.scrollWidth, one.clientWidth]);
document.body.append("MEASURED" + JSON.stringify({width: innerWidth, all}) + "END");
</script></body>"""


def measured(page: Path, width: int) -> dict[str, Any]:
    """The widths of a page's tables, and of what they have for it."""
    assert CHROMIUM is not None
    copy = page.with_name(f"{width}.html")
    text = re.sub(r"<meta[^>]*Content-Security-Policy[^>]*>", "", page.read_text())
    copy.write_text(text.replace("</body>", MEASURE))
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={page.parent / 'profile'}"]
    words += [f"--window-size={width},900", "--dump-dom", copy.as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found = re.search(r"MEASURED(\{.*\})END", done.stdout)
    assert found is not None, done.stdout[-2000:]
    return dict(json.loads(found[1]))


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
def test_no_table_scrolls_sideways(tmp_path: Path) -> None:
    suite = planted_suite(140)
    inspect(Subject(PlantedModel(), "planted"), suite, tmp_path / "out", against=Subject(Bm25Model(), "bm25"))
    page = write_inspect_page(tmp_path / "page.html", tmp_path / "out", suite)
    for width in (NARROW, WIDE):
        found = measured(page, width)
        assert found["width"] == width and len(found["all"]) >= 4
        assert [one for one in found["all"] if one[0] > one[1]] == []
