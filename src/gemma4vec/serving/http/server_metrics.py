"""Counters, gauges and histograms in the Prometheus text format (version 0.0.4)."""

import threading
from collections.abc import Iterable, Mapping
from typing import NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384, 65536)

Labels = tuple[tuple[str, str], ...]


class Family(NamedTuple):
    """A metric: its type, its help line, and the upper bounds of a histogram's buckets."""

    kind: str
    help: str
    bounds: tuple[float, ...] = ()


FAMILIES: dict[str, Family] = {
    "gemma4vec_requests_total": Family("counter", "Requests by endpoint and status; 499: the client left."),
    "gemma4vec_request_seconds": Family("histogram", "Seconds from a request's headers to its reply.", _SECONDS),
    "gemma4vec_texts_total": Family("counter", "Texts that were encoded."),
    "gemma4vec_tokens_total": Family("counter", "Tokens that were encoded."),
    "gemma4vec_batch_tokens": Family("histogram", "Tokens of a batch.", _TOKENS),
    "gemma4vec_batch_seconds": Family("histogram", "Seconds of a batch in the model.", _SECONDS),
    "gemma4vec_failed_texts_total": Family("counter", "Texts for which the model computes no vector."),
    "gemma4vec_truncated_texts_total": Family("counter", "Texts that were truncated at the limit."),
    "gemma4vec_queue_tokens": Family("gauge", "Tokens that wait, by priority."),
    "gemma4vec_expired_texts_total": Family("counter", "Texts that were dropped because their time was over."),
    "gemma4vec_in_flight_requests": Family("gauge", "Requests that are being answered."),
    "gemma4vec_ready": Family("gauge", "1 if requests are accepted."),
    "gemma4vec_model_info": Family("gauge", "1, with the model's name and fingerprint."),
}


class Metrics:
    """Values of the families above. Every method may be called from any thread.

    Args:
        labels: labels of every value, such as the number of the worker.
    """

    def __init__(self, **labels: str):
        self._common: Labels = tuple(labels.items())
        self._values: dict[tuple[str, Labels], float] = {}
        self._lock = threading.Lock()

    def count(self, name: str, by: float = 1, **labels: str) -> None:
        """Add to a counter."""
        with self._lock:
            self._add(name, (*self._common, *labels.items()), by)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge, or a counter that is kept elsewhere."""
        with self._lock:
            self._values[name, (*self._common, *labels.items())] = value

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add a value to a histogram."""
        given = (*self._common, *labels.items())
        with self._lock:
            for bound in FAMILIES[name].bounds:
                self._add(f"{name}_bucket", (*given, ("le", f"{bound:g}")), float(value <= bound))
            self._add(f"{name}_bucket", (*given, ("le", "+Inf")), 1)
            self._add(f"{name}_sum", given, value)
            self._add(f"{name}_count", given, 1)

    def values(self) -> dict[tuple[str, Labels], float]:
        """A copy of all values by name and labels."""
        with self._lock:
            return dict(self._values)

    def _add(self, name: str, labels: Labels, by: float) -> None:
        self._values[name, labels] = self._values.get((name, labels), 0.0) + by


def render(values: Iterable[Mapping[tuple[str, Labels], float]]) -> str:
    """The text that Prometheus reads, of one or several processes."""
    merged = {key: value for one in values for key, value in one.items()}
    lines = []
    for name, family in FAMILIES.items():
        names = [f"{name}_bucket", f"{name}_sum", f"{name}_count"] if family.kind == "histogram" else [name]
        found = [(own, labels, value) for (own, labels), value in merged.items() if own in names]
        if not found:
            continue
        lines += [f"# HELP {name} {family.help}", f"# TYPE {name} {family.kind}"]
        lines += [f"{own}{_labels(labels)} {_number(value)}" for own, labels, value in found]
    return "\n".join([*lines, ""])


def _labels(labels: Labels) -> str:
    inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
    return f"{{{inside}}}" if inside else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
