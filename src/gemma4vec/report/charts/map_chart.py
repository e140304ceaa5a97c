"""Chart of an inspection's map: documents and queries as points of a plane."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from gemma4vec.report.charts.svg import Panel, Point, Scale, dots, marker, padded_range, picture

MAP_HEIGHT = 420.0


@dataclass(frozen=True)
class MapDots:
    """Places of the points that are drawn, by what they are."""

    documents: Sequence[Point]
    found: Sequence[Point]
    failed: Sequence[Point]
    sealed: Sequence[Point]

    @property
    def count(self) -> int:
        """Number of points."""
        return len(self.documents) + len(self.found) + len(self.failed) + len(self.sealed)


def draw_map(points: MapDots, width: float) -> Markup | None:
    """Draw places in two dimensions: documents below, queries above, failing ones as diamonds; None without points."""
    if not points.count:
        return None
    every = [*points.documents, *points.found, *points.failed, *points.sealed]
    xs, ys = padded_range([x for x, _ in every], 0.02), padded_range([y for _, y in every], 0.02)
    height = min(MAP_HEIGHT, width)
    panel = Panel(Scale(*xs, 4.0, width - 4.0), Scale(*ys, height - 4.0, 4.0))
    parts = [
        dots(panel.points(points.documents), "documents"),
        dots(panel.points(points.sealed), "sealed"),
        dots(panel.points(points.found), "trained"),
        *(marker(one, "mark other", "diamond", 3.0) for one in panel.points(points.failed)),
    ]
    described = (
        f"{len(points.documents)} documents, {len(points.found)} queries of the open half that are answered, "
        f"{len(points.failed)} that are not, {len(points.sealed)} sealed queries."
    )
    return picture(width, height, "Map", described, parts)
