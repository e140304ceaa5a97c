"""The record of versions, commit and machine."""

import json
import subprocess
from pathlib import Path

from gemma4vec.ledger.environment import environment, git_state


def test_the_record_is_json_and_names_what_matters() -> None:
    found = json.loads(json.dumps(environment()))
    assert found["versions"]["torch"] and found["versions"]["python"].startswith("3.")
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["memory_bytes"] > 2**28
    assert found["machine"]["cpu"]


def test_git_state_is_that_of_the_checkout_that_tracks_the_file(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    tracked, untracked = tmp_path / "tracked.py", tmp_path / "untracked.py"
    tracked.write_text("1")
    untracked.write_text("1")
    assert git_state(tracked) is None
    git("init", "-q")
    git("add", "tracked.py")
    git("commit", "-q", "-m", "first")
    assert git_state(tracked) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    assert git_state(untracked) is None
    tracked.write_text("2")
    state = git_state(tracked)
    assert state is not None and state["dirty"]
