"""What is wrong with what came of a command."""

import json
import re

from fuzzing.inputs import Input
from fuzzing.sandbox import Outcome

CODES = (0, 1, 2)
# What a person should never see, whoever wrote it: Python, a library in C++ or Rust, or our own last resort.
ALARMS = re.compile(
    r"^error: unexpected \w+:|unexpected \w+(?:Error|Exception)\b|Traceback \(most recent call last\)"
    r"|Exception ignored in|Exception in thread|Fatal Python error|panicked at|terminate called",
    re.MULTILINE,
)


def faults(one: Input, outcome: Outcome) -> list[str]:
    """All that is wrong, each in a few words; empty: nothing."""
    found = []
    if outcome.hung:
        found.append(f"hang: {outcome.seconds:.0f} s")
    elif outcome.signal is not None:
        found.append(f"signal {outcome.signal}")
    elif outcome.code not in CODES:
        found.append(f"exit code {outcome.code}")
    text = outcome.stdout.decode("utf-8", "replace"), outcome.stderr.decode("utf-8", "replace")
    for stream in text:
        alarm = ALARMS.search(stream)
        if alarm is not None:
            line = stream[alarm.start() :].splitlines()
            last = next((each for each in reversed(line) if each.strip() and not each.startswith(" ")), line[0])
            found.append((last if "Traceback" in line[0] else line[0])[:300])
    if outcome.code not in (0, None) and not outcome.stderr.strip():
        found.append("a failure without a word on stderr")
    if one.as_json and not outcome.hung and outcome.signal is None:
        found += _json_faults(one, outcome)
    found += [f"outside: {each}" for each in outcome.outside]
    return found


def _json_faults(one: Input, outcome: Outcome) -> list[str]:
    try:
        text = outcome.stdout.decode(one.encoding)
    except UnicodeDecodeError:
        return [f"stdout is not {one.encoding}"]
    if not text.strip():
        # An empty standard input has no queries, and so no answers.
        return ["no JSON on stdout"] if outcome.code == 0 and one.words[0] != "search" else []
    documents = text.splitlines() if one.words[0] == "search" else [text]
    for document in documents:
        try:
            json.loads(document, parse_constant=_refuse)
        except ValueError as error:
            return [f"stdout is not JSON: {error}"]
    return []


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
