"""A made-up repository: small documented functions in several packages, all different."""

from pathlib import Path

VERBS = ("sort", "merge", "count", "split", "paint", "weigh", "fold", "bake", "print", "guess")
NOUNS = ("apples", "graphs", "letters", "clouds", "rivers", "tables", "windows", "engines")


def write_code(root: Path, packages: int = 10) -> Path:
    """`packages` packages of two modules with four functions each."""
    for verb in VERBS[:packages]:
        package = root / f"{verb}ing"
        package.mkdir(parents=True)
        for half in (0, 1):
            functions = [_function(verb, noun) for noun in NOUNS[half * 4 : half * 4 + 4]]
            (package / f"module{half}.py").write_text("\n\n".join(functions), encoding="utf-8")
    return root


def _function(verb: str, noun: str) -> str:
    first, second, third, fourth, fifth = (f"{verb}_{noun}_{letter}" for letter in "abcde")
    return (
        f'def {verb}_{noun}({first}):\n    """{verb.title()} all the {noun} of a house."""\n'
        f"    {second} = {first} + 1\n    {third} = {second} * {fourth}\n    return {third}, {fifth}\n"
    )
