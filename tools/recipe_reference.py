"""Write the reference of recipe keys and the JSON Schemas for editors, both from the schema in `gemma4vec.recipe`.

python tools/recipe_reference.py           write docs/reference/recipe.md, recipe.schema.json and plan.schema.json
python tools/recipe_reference.py --check   exit with 1 if either is out of date
"""

import argparse
import json
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, JsonValue
from pydantic.fields import FieldInfo

from gemma4vec.recipe.plans.matrix import Matrix
from gemma4vec.recipe.plans.plan import Plan
from gemma4vec.recipe.readouts import Mean
from gemma4vec.recipe.renamed import ALIASES, RENAMED
from gemma4vec.recipe.schema import Contrast, Recipe
from gemma4vec.recipe.sources import JsonlSource

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "recipe.md"
SCHEMA = ROOT / "src" / "gemma4vec" / "recipe" / "recipe.schema.json"
PLAN_SCHEMA = SCHEMA.with_name("plan.schema.json")

# Parts that may leave out the key that says their kind.
_DEFAULT_KINDS: tuple[type[BaseModel], ...] = (JsonlSource, Contrast, Mean)

_INTRO = """# Recipe keys

<!-- Written by tools/recipe_reference.py from src/gemma4vec/recipe; edit the descriptions there. -->

Every key of a recipe, part by part. A key that is left out has its default. On the command line a key is written with
its path: `stages.0.batch.rows=64`. [Recipes](../guides/recipes.md) explains how to write one.

```yaml
name: mine
model: {base: bundled:gemma-3-270m, readout: mean, lora: {rank: 32}}
stages:
  - data: [{name: pairs, path: pairs.jsonl}]
    task: {temperature: 0.02, hard_negatives: 4}
    optimizer: {learning_rate: 2.0e-4}
    budget: {rows: 100_000}
```

Editors complete and check keys with `recipe.schema.json`, which comes with the package. Print its path with
`python -c "import gemma4vec.recipe.find as f; print(f.SCHEMA)"` and write it into the first line of a recipe:
`# yaml-language-server: $schema=PATH`.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check both files; return the exit code."""
    parser = argparse.ArgumentParser(description="Write the reference of recipe keys and the JSON Schema.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is out of date")
    check = parser.parse_args(arguments).check
    stale = [file for file, text in files().items() if not file.is_file() or file.read_text(encoding="utf-8") != text]
    for file in stale:
        print(f"{file.relative_to(ROOT)} {'is out of date; run tools/recipe_reference.py' if check else 'written'}")
        if not check:
            file.write_text(files()[file], encoding="utf-8")
    return int(check and bool(stale))


def files() -> dict[Path, str]:
    """Return what each file should contain."""
    schemas = {SCHEMA: schema(), PLAN_SCHEMA: plan_schema()}
    return {
        PAGE: page(),
        **{file: json.dumps(one, indent=1, ensure_ascii=False) + "\n" for file, one in schemas.items()},
    }


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a recipe, with the short forms that YAML files may use."""
    tree = Recipe.model_json_schema()
    for part in reachable(Recipe):
        tag, field = next(iter(part.model_fields.items()))
        if is_tag(field) and part not in _DEFAULT_KINDS:  # else a part without a tag would be of every kind at once
            definition = tree["$defs"][part.__name__]
            definition["required"] = [tag, *definition.get("required", ())]
    hardness = tree["$defs"]["Nce"]["properties"]["hardness"]
    hardness["anyOf"] = [*hardness["anyOf"], {"type": "boolean"}]
    model = tree["$defs"]["Model"]["properties"]
    names = [part.model_fields["name"].default for part in _parts(_model_part().model_fields["readout"].annotation)]
    model["readout"] = {"anyOf": [{"enum": names}, {k: v for k, v in model["readout"].items() if k != "default"}]}
    model["pooling"] = {"$ref": "#/$defs/Model/properties/readout", "description": "another name of readout"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **tree,
        "title": "gemma4vec recipe",
    }


def plan_schema() -> dict[str, Any]:
    """Return the JSON Schema of a plan, with the short forms that YAML files may use."""
    tree = Plan.model_json_schema()
    soup, suites = (tree["$defs"][name]["properties"] for name in ("Soup", "Suites"))
    for key in ("of", "also"):
        described = {name: soup[key].pop(name) for name in ("description", "default") if name in soup[key]}
        soup[key] = {"anyOf": [{"type": "string"}, soup[key]], **described}
    for key in ("dev", "final"):
        suites[key]["items"] = {"anyOf": [{"type": "string"}, suites[key]["items"]]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **tree, "title": "gemma4vec plan"}


def page() -> str:
    """Return the page: a section for each part, in the order in which a recipe reaches them."""
    text = [_INTRO]
    text.extend(_section(part) for part in reachable(Recipe))
    text.append("## Renamed keys\n\nOld names are still read, with one line in the log; recipe ids do not change.\n")
    text.append("| old key | new name |\n|---|---|")
    text.extend(f"| `{path}` | `{new}` |" for path, new in RENAMED.items())
    text.append("\n" + " ".join(f"`{path}` is another name of `{new}`." for path, new in ALIASES.items()) + "\n")
    text.append("# Matrix plan keys\n\n[Matrix](../guides/matrix.md) explains how to write a plan.\n")
    shared = set(reachable(Recipe))
    text.extend(_section(part) for part in reachable(Matrix) if part not in shared)
    text.append("# Plan keys\n\n[Plans](../guides/pipeline.md) explains how to write a plan.\n")
    shared |= set(reachable(Matrix))
    text.extend(_section(part) for part in reachable(Plan) if part not in shared)
    return "\n".join(text).rstrip() + "\n"


def reachable(whole: type[BaseModel]) -> list[type[BaseModel]]:
    """Return a part and all parts inside it, each once, depth first."""
    found: dict[type[BaseModel], None] = {}

    def visit(part: type[BaseModel]) -> None:
        if part not in found:
            found[part] = None
            for field in part.model_fields.values():
                for inner in _parts(field.annotation):
                    visit(inner)

    visit(whole)
    return list(found)


def is_tag(field: FieldInfo) -> bool:
    """Whether a key has a single value, which says of which kind its part is."""
    return get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1


def _section(part: type[BaseModel]) -> str:
    first_name, first = next(iter(part.model_fields.items()))
    title = f"{part.__name__}: `{first_name}: {first.default}`" if is_tag(first) else part.__name__
    lines = [f"## {title} {{ #{_anchor(part)} }}", "", _one_paragraph(part.__doc__ or ""), ""]
    rows = [_row(name, field) for name, field in part.model_fields.items() if not is_tag(field)]
    head = ["| key | type | default | what it says |", "|---|---|---|---|"]
    lines += [*head, *rows] if rows else ["It has no other keys."]
    return "\n".join([*lines, ""])


def _row(name: str, field: FieldInfo) -> str:
    limits = [f"{sign} {limit}" for sign, limit in _limits(field)]
    kind = _type(field.annotation) + (f" ({', '.join(limits)})" if limits else "")
    return f"| `{name}` | {kind} | {_default(field)} | {_escaped(field.description or '')} |"


def _limits(field: FieldInfo) -> Iterator[tuple[str, Any]]:
    for rule in field.metadata:
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            if getattr(rule, name, None) is not None:
                yield sign, getattr(rule, name)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel) or (isinstance(value, tuple) and any(isinstance(one, BaseModel) for one in value)):
        shown = [value] if isinstance(value, BaseModel) else value
        return ", ".join(dict.fromkeys(_link(type(one)) for one in shown))
    if value is None:
        return "null"
    return f"`{_escaped(json.dumps(value, ensure_ascii=False))}`"


def _type(annotation: Any) -> str:
    parts = list(dict.fromkeys(_parts(annotation)))
    origin, inside = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return _type(inside[0])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(one) for one in inside))
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in inside)
    if origin is tuple:
        items = [one for one in inside if one is not ...]
        return "list of " + (" or ".join(_link(part) for part in parts) or _type(items[0])) if items else "list"
    if origin is dict:
        return f"mapping of {_type(inside[0])} to {_type(inside[1])}"
    if parts:
        return _link(parts[0])
    if annotation is JsonValue:
        return "value"
    names = {int: "integer", float: "number", str: "text", bool: "true or false", types.NoneType: "null"}
    return names.get(annotation, str(annotation))


def _parts(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [part for one in getattr(annotation, "__args__", ()) for part in _parts(one)]


def _model_part() -> type[BaseModel]:
    return _parts(Recipe.model_fields["model"].annotation)[0]


def _link(part: type[BaseModel]) -> str:
    return f"[{part.__name__}](#{_anchor(part)})"


def _anchor(part: type[BaseModel]) -> str:
    return part.__name__.lower()


def _one_paragraph(text: str) -> str:
    return "\n\n".join(" ".join(block.split()) for block in text.split("\n\n"))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    raise SystemExit(main())
