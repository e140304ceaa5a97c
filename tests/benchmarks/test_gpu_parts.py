"""What the programs for a GPU do where memory or time runs out, and what their numbers are made of."""

import argparse
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_model import write_tiny

from gemma4vec.data.rows.rows import Row
from gemma4vec.errors import InputError, WorkError
from gemma4vec.machine.device import DeviceChoice
from gemma4vec.text.prompts import Document

ROOT = Path(__file__).resolve().parents[2]
STUCK = """
import sys, time
import torch  # what writing needs
from pathlib import Path
from benchmarks.gpu.found import Found

found = Found("stuck", {"part": "x"}, Path(sys.argv[1]), limit=4.0)
found.keep(first=1)
found["second"] = [2]
found.keep()
while True:
    try:
        time.sleep(0.01)  # as a compiler that takes whatever is raised in it for its own failure
        raise RuntimeError
    except BaseException:
        continue
"""


def test_a_limit_ends_what_swallows_every_exception_and_keeps_what_was_found(tmp_path: Path) -> None:
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    words = [sys.executable, "-c", STUCK, str(tmp_path)]
    done = subprocess.run(words, env=os.environ | {"PYTHONPATH": path}, timeout=900, capture_output=True, text=True)
    from benchmarks.gpu.found import STOPPED

    assert done.returncode == STOPPED, done.stderr
    (file,) = tmp_path.glob("stuck-*.json")
    found = json.loads(file.read_text(encoding="utf-8"))
    assert (found["part"], found["first"], found["second"], found["finished"]) == ("x", 1, [2], False)
    assert "its limit of 4 s" in found["error"]


def test_limits_are_of_parts() -> None:
    from benchmarks.gpu.__main__ import limit_given, limit_of

    arguments = argparse.Namespace(limits=[limit_given("training-e2b=90")], minutes=2.0, smoke=False)
    assert limit_of("training-e2b", arguments) == 90
    longer = argparse.Namespace(**vars(arguments) | {"minutes": 4.0})
    assert limit_of("quality", longer) - limit_of("quality", arguments) == 120
    for wrong in ("training=90", "training-e2b", "training-e2b=0", "training-e2b=-1"):
        with pytest.raises(argparse.ArgumentTypeError, match="no PART=SECONDS"):
            limit_given(wrong)


def test_fewer_rows_are_tried_where_memory_runs_out() -> None:
    from benchmarks.gpu.speed import with_fewer_rows

    def work(rows: int) -> str:
        if rows > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return f"{rows} rows"

    room, no_room = 20, list[int]()
    assert with_fewer_rows(64, work, no_room) == "16 rows" and no_room == [64, 32]
    room = 3
    with pytest.raises(WorkError, match="4 rows in a batch do not fit"):
        with_fewer_rows(16, work, no_room)
    assert no_room == [64, 32, 16, 8, 4]


def test_a_precision_without_room_is_not_chosen_and_no_peer_outlives_its_trial() -> None:
    from benchmarks.speed.training_speed import fastest_precision

    class Peer:
        def __init__(self, precision: str):
            self.precision, self.itself = precision, self

        def train(self, clock: Any) -> None:
            if self.precision in without_room:
                raise torch.OutOfMemoryError("CUDA out of memory")
            clock.seconds.append({"bf16": 4.0, "mixed": 2.0}[self.precision])

    made: list[weakref.ref[Peer]] = []

    def peer_of(precision: str, steps: int, given: int) -> Any:
        assert not any(before() for before in made) and given > steps
        peer = Peer(precision)
        made.append(weakref.ref(peer))
        return peer

    without_room: list[str] = []
    assert fastest_precision(peer_of, "torch.bfloat16", 2) == ("mixed", {"bf16": 2.0, "mixed": 1.0})
    without_room = ["mixed"]
    assert fastest_precision(peer_of, "torch.bfloat16", 2) == ("bf16", {"bf16": 2.0})
    without_room = ["mixed", "bf16"]
    with pytest.raises(torch.OutOfMemoryError):
        fastest_precision(peer_of, "torch.bfloat16", 2)


def test_rounds_so_far_give_the_ratio_of_the_fastest_sides() -> None:
    from benchmarks.gpu.speed import compared

    seconds = {"ours_1": [2.0, 4.0, 2.0], "ours_2": [3.0, 3.0, 3.0], "theirs_8": [9.0, 8.0, 8.0], "theirs_9": [9.0] * 3}
    found = compared(seconds, 120, {"ours_1": 4e12, "ours_2": 8e12}, 10.0)
    assert found["fastest"] == {"ours": "ours_1", "theirs": "theirs_8"}
    assert found["ratio"]["values"] == [4.5, 2.0, 4.0]
    assert found["model_flop_utilisation"] == pytest.approx(4e12 / 2.0 / 10e12)


def test_the_peer_is_tried_compiled_where_there_is_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.gpu import speed as gpu_speed
    from benchmarks.gpu.found import Found

    from gemma4vec.model.backbone.compilation import CompileChoice

    asked: list[dict[str, Any]] = []

    def meets(chosen: Any, arguments: Any, folder: Any, ours: Any, found: Found, **settings: Any) -> None:
        asked.append(settings)
        if isinstance(outcome, Exception):
            raise outcome
        found.keep(with_compiled_peer={"ratio": {"median": outcome}})

    monkeypatch.setattr(gpu_speed, "against_peer", meets)
    monkeypatch.setattr(gpu_speed, "choose_compile", lambda *_, **__: CompileChoice(True, ""))
    nothing: Any = None

    def fastest(limit: float | None) -> tuple[float, dict[str, Any]]:
        found = Found("found", {}, tmp_path, limit)
        found.keep(ratio={"median": 2.5}, peer={"precision": "mixed"})
        gpu_speed.peer_compiled(nothing, argparse.Namespace(smoke=False), tmp_path, nothing, found)
        found.end()
        return found["ratio_to_fastest_peer"]["median"], found["peer_compiled"]

    outcome: float | Exception = 2.0
    assert fastest(None) == (2.0, {"tried": True, "finished": True})
    assert asked[0]["peer_compile"] and asked[0]["peer_precision"] == "mixed"
    outcome = 3.0
    assert fastest(None)[0] == 2.5
    outcome = RuntimeError("no shape fits")
    assert fastest(None) == (2.5, {"tried": True, "finished": False, "error": "RuntimeError: no shape fits"})
    ratio, told = fastest(30.0)
    assert ratio == 2.5 and not told["tried"] and "were left" in told["reason"] and len(asked) == 3


def test_the_peer_has_loader_processes_on_a_gpu_with_cores_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.shared import peer_trainer

    found = []
    for device, cores in (("cpu", 16), ("cuda", 2), ("cuda", 8), ("cuda", 64)):
        monkeypatch.setattr(peer_trainer, "choose_device", lambda d=device: DeviceChoice(d))
        monkeypatch.setattr(peer_trainer, "usable_cores", lambda c=cores: c)
        found.append(peer_trainer.loader_processes())
    assert found == [0, 0, 2, 4]


def test_batch_sizes_are_tried_in_rounds() -> None:
    from benchmarks.speed.encoding_speed import TRIAL_ROUNDS, try_batch_sizes

    tried: list[tuple[int, int]] = []
    peer: Any = SimpleNamespace(batch_size=0)
    peer.encode_document = lambda texts: tried.append((peer.batch_size, len(texts)))
    seconds = try_batch_sizes(peer, ["text"] * 20, [32, 8, 32])
    assert tried == [(32, 20), (8, 8)] + [(32, 20), (8, 20)] * TRIAL_ROUNDS
    assert [len(taken) for taken in seconds.values()] == [TRIAL_ROUNDS] * 2


def test_only_dev_suites_are_opened(tmp_path: Path) -> None:
    from benchmarks.gpu.quality import dev_suites

    for name, role in (("cranfield", None), ("cosqa", None), ("scifact", None), ("kept", "final")):
        suite = tmp_path / "retrieval" / name
        (suite / "qrels").mkdir(parents=True)
        (suite / "corpus.jsonl").write_text(json.dumps({"_id": "d", "title": "", "text": name}), encoding="utf-8")
        (suite / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": f"what is {name}"}), encoding="utf-8")
        (suite / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n", encoding="utf-8")
        if role:
            (suite / "suite.yaml").write_text(f"role: {role}\n", encoding="utf-8")
    assert [(suite.name, suite.role) for suite in dev_suites(tmp_path, [])] == [("cranfield", "dev"), ("cosqa", "dev")]
    assert [suite.name for suite in dev_suites(tmp_path, ["scifact"])] == ["scifact"]
    with pytest.raises(InputError, match="final suite"):
        dev_suites(tmp_path, ["kept"])
    with pytest.raises(InputError, match="no suite other"):
        dev_suites(tmp_path, ["other"])


def test_a_block_makes_as_many_batches_as_it_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its clock runs, that is; and a model that is used again begins anew."""
    from benchmarks.gpu.speed import recipe
    from benchmarks.shared import our_trainer

    from gemma4vec.machine.prefetch import DEPTH
    from gemma4vec.model.bases.resolve import resolve_base

    base = write_tiny(tmp_path / "base")
    arguments = argparse.Namespace(hard_negatives=1, smoke=True, eager=True)
    chosen = recipe(
        base, tmp_path / "rows.jsonl", arguments, 2, {"row_tokens": 64, "tokens_per_forward": 256}, large=False
    )
    rows = [Row(f"query {i}", [Document(f"text {i}")], [Document(f"other {i}")], None) for i in range(40)]
    ours = our_trainer.build_ours(chosen, resolve_base(str(base)), rows, tmp_path, 8)
    made, clock = [], list[int]()
    first_batches = ours.first_batches
    monkeypatch.setattr(ours, "first_batches", lambda: (made.append(1) or batch for batch in first_batches()))
    monkeypatch.setattr(our_trainer, "read_clock", lambda: float(clock.append(len(made)) or 0))  # type: ignore[func-returns-value]
    ours.prepare()
    for steps in (1, 3, 4):
        ours.train(steps)
    assert [after - before for before, after in zip(clock[::2], clock[1::2], strict=True)] == [1, 3, 4]
    assert len(ours.ready) == DEPTH and len(made) == 8 + DEPTH and len(ours.losses) == 8
    again = our_trainer.build_ours(chosen, resolve_base(str(base)), rows, tmp_path, 8, ours)
    again.prepare()
    again.train(8)
    assert again.built is ours.built
    assert again.losses == pytest.approx(ours.losses, abs=1e-6) and again.losses[-1] != again.losses[0]
