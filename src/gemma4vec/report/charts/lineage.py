"""The lineage of models: one line each, indented below what it was made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from gemma4vec.report.charts.svg import line, marker, picture, text

HEIGHT, INDENT, RADIUS = 26.0, 18.0, 5.0


@dataclass(frozen=True)
class Node:
    """A model.

    Attributes:
        name: its name.
        parents: names of the models that it was made from, of earlier nodes.
        score: shown on the right; None: none.
        dropped: whether a choice left it out.
    """

    name: str
    parents: tuple[str, ...]
    score: float | None = None
    dropped: bool = False


def draw_lineage(nodes: Sequence[Node], width: float, colors: Mapping[str, str]) -> Markup | None:
    """Draw the nodes in their order; None without any.

    A node's indentation is the length of the longest way to it, so that it is right of all that it was made from.

    Args:
        nodes: each after its parents.
        width: of the picture.
        colors: name -> class that sets the color.
    """
    if not nodes:
        return None
    depth: dict[str, int] = {}
    place: dict[str, tuple[float, float]] = {}
    parts = []
    for number, node in enumerate(nodes):
        depth[node.name] = max((depth[parent] + 1 for parent in node.parents if parent in depth), default=0)
        x, y = RADIUS + 2 + INDENT * depth[node.name], HEIGHT * (number + 0.5)
        for parent in node.parents:
            if parent in place:
                start_x, start_y = place[parent]
                parts.append(line((start_x, start_y), (start_x, y), "axis"))
                parts.append(line((start_x, y), (x, y), "axis"))
        place[node.name] = (x, y)
    for node in nodes:
        x, y = place[node.name]
        parts.append(marker((x, y), f"mark {colors[node.name]}", "diamond" if node.dropped else "circle", RADIUS))
        parts.append(text((x + 12, y + 4), node.name + (" (not kept)" if node.dropped else ""), "label"))
        if node.score is not None:
            parts.append(text((width - 4, y + 4), f"{node.score:.3f}", "tick", "end"))
    described = "; ".join(f"{node.name} from {', '.join(node.parents) or 'the base'}" for node in nodes)
    return picture(width, HEIGHT * len(nodes), "Lineage", described, parts)
