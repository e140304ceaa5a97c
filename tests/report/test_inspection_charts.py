"""Charts of an inspection: values where their scale says, hostile names as texts, nothing where there is nothing."""

import re

from hostile_page import HOSTILE, Page

from gemma4vec.report.charts.inspection_charts import LEFT, RIGHT, draw_layers, draw_rows
from gemma4vec.report.charts.vector_charts import draw_vector, draw_walk


def circles(svg: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'<circle [^>]*cx="([\d.]+)" cy="([\d.]+)"', svg)]


def test_layers_stand_from_first_to_last_and_higher_scores_higher() -> None:
    layers = [
        {"layer": place, "ndcg@10": score, "minus_last": score - 0.3, "low": score - 0.35, "high": score - 0.25}
        for place, score in enumerate((0.1, 0.4, 0.3))
    ]
    svg = str(draw_layers(layers, 700.0))
    (first, best) = circles(svg)  # the last one is a diamond
    assert first[0] == LEFT and best[1] < first[1] and "0.400" in svg
    of_one_query = [one | {"low": None, "high": None} for one in layers]
    assert circles(str(draw_layers(of_one_query, 700.0))) and 'class="interval' not in str(
        draw_layers(of_one_query, 700.0)
    )
    assert draw_layers(layers[:1], 700.0) is None and draw_layers([], 700.0) is None


def test_rows_are_in_their_order_around_zero() -> None:
    rows = [("worse", -0.2, -0.3, -0.1, 0.0), (HOSTILE * 3, 0.1, None, None, None)]
    svg = str(draw_rows(rows, "title", "axis", 700.0))
    (worse, better) = circles(svg)
    zero = float(re.findall(r'class="zero" x1="([\d.]+)"', svg)[0])
    assert worse[0] < zero < better[0] <= 700 - RIGHT and worse[1] < better[1]
    page = Page(svg)
    assert "img" not in page.tags and "\x1b" not in svg and draw_rows([], "t", "a", 700.0) is None


def test_a_vector_has_a_bar_a_dimension_and_a_walk_a_mark_a_text() -> None:
    svg = str(draw_vector([0.5, -1.0, 0.25], 300.0))
    ends = [float(y) for y in re.findall(r"M[\d.]+ [\d.]+V([\d.]+)", svg)]
    assert len(ends) == 3 and ends[1] == max(ends) and ends[0] == min(ends)
    assert draw_vector([], 300.0) is None and draw_vector([0.0], 300.0) is not None
    steps = [{"degrees": 4.0 * place, "to_query": 1 - 0.1 * place, "to_target": 0.2 * place} for place in (1, 2, 3)]
    svg = str(draw_walk(steps, 12.0, 700.0))
    assert len(circles(svg)) == 3 and circles(svg)[0][1] < circles(svg)[-1][1]  # the cosine to the query falls
    assert circles(svg)[-1][0] == 700 - 16.0 and draw_walk([], 12.0, 700.0) is None
