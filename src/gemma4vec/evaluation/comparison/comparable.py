"""Which results can be compared: the same suite and queries, texts read to the same length."""

from typing import Any

from gemma4vec.errors import InputError
from gemma4vec.evaluation.results.result import Result

LIMIT_WORDS = ("max_tokens", "token_limit", "max_seq_length", "truncat")


def check_comparable(
    a: Result, b: Result, metric: str, *, allow_different_settings: bool = False
) -> dict[str, tuple[Any, Any]]:
    """Refuse two results whose comparison would not be fair; return the other settings that differ.

    Raises:
        InputError: different suites or queries, a metric that one lacks, different truncation limits.
    """
    _check_same_suite(a, b)
    differing = differing_settings(a, b)
    if not allow_different_settings:
        check_limits(a, b)
    for one in (a, b):
        if metric not in one.metrics:
            raise InputError(f"{one.model} on {one.suite} has no metric '{metric}'; it has {', '.join(one.metrics)}")
    if a.keys != b.keys:
        raise InputError(_different_queries(a, b, a.keys, b.keys))
    return differing


def differing_settings(a: Result, b: Result) -> dict[str, tuple[Any, Any]]:
    """Return the settings of model and ranking that both results have and that differ, by dotted name."""
    flat_a, flat_b = _flat(a.settings.get("model")), _flat(b.settings.get("model"))
    depths = [(result.settings.get("ranking") or {}).get("depth") for result in (a, b)]
    differing = {
        name: (flat_a[name], flat_b[name]) for name in flat_a if name in flat_b and flat_a[name] != flat_b[name]
    }
    if None not in depths and depths[0] != depths[1]:
        differing["depth"] = (depths[0], depths[1])
    return differing


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries to dotted names."""
    if not isinstance(value, dict):
        return {prefix: value} if prefix else {}
    flat: dict[str, Any] = {}
    for name, item in value.items():
        flat.update(_flat(item, f"{prefix}.{name}" if prefix else str(name)))
    return flat


def _check_same_suite(a: Result, b: Result) -> None:
    """Refuse results whose queries, documents or judgments are not the same."""
    prints = [result.contents for result in (a, b)]
    if None not in prints and prints[0] != prints[1]:
        raise InputError(
            f"A was evaluated on {a.suite} ({str(prints[0])[:12]}) and B on {b.suite} ({str(prints[1])[:12]}): "
            "not the same queries, documents and judgments; evaluate both on one suite"
        )


def check_limits(a: Result, b: Result) -> None:
    """Refuse results of models that read different amounts of each text.

    Raises:
        InputError: different truncation limits or depths.
    """
    differing = differing_settings(a, b)
    limits = [name for name in differing if any(word in name for word in LIMIT_WORDS)]
    if "depth" in differing or limits:
        name = limits[0] if limits else "depth"
        value_a, value_b = differing[name]
        raise InputError(
            f"{a.model} was evaluated with {name} {value_a} and {b.model} with {value_b}; evaluate again with the same "
            "--max-tokens, or pass --allow-different-settings"
        )


def _different_queries(a: Result, b: Result, keys_a: list[tuple[str, str]], keys_b: list[tuple[str, str]]) -> str:
    """Describe in one line which queries differ."""
    only_a, only_b = sorted(set(keys_a) - set(keys_b)), sorted(set(keys_b) - set(keys_a))
    task, query_id = (only_a or only_b)[0]
    return (
        f"{a.model} and {b.model} were not evaluated on the same queries: {len(only_a)} only in A, {len(only_b)} only "
        f"in B (first: '{query_id}' of {task}); evaluate both on one suite"
    )
