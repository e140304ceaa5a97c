"""The page about how far a model's vectors leak: the curve of leak against use, every defense, the floors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemma4vec.report.charts.leak_chart import draw_leak, kinds_of
from gemma4vec.report.charts.series import series_class
from gemma4vec.report.templating import draw_chart, render_template, write_page

KINDS = {
    "none": "none",
    "int8": "int8: a byte a dimension",
    "binary": "binary: the sign alone",
    "pca": "PCA: fewer directions",
    "prefix": "prefix: the first dimensions",
    "noise": "noise: Gaussian, a dimension",
}


def write_privacy_page(result: Mapping[str, Any], out: Path) -> Path:
    """Write the page about the result of `gemma4vec privacy`.

    Raises:
        WorkError: the file cannot be written.
    """
    return write_page(out, render_privacy(result))


def render_privacy(result: Mapping[str, Any]) -> str:
    """Return the page as HTML."""
    rows = result["defenses"]
    floors = {name: value["f1"]["mean"] for name, value in result["floors"].items()}
    kinds = kinds_of(rows)
    values = {
        "result": result,
        "curve": draw_chart(lambda width: draw_leak(rows, floors, width)),
        "legend": [(KINDS.get(kind, kind), series_class(place)) for place, kind in enumerate(kinds)],
        "colors": {kind: series_class(place) for place, kind in enumerate(kinds)},
    }
    return render_template("privacy.html", values)
