"""Vectors that are kept: the same as computed ones, never those of another model or text, never more than allowed."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest

from gemma4vec.cli.main import execute
from gemma4vec.errors import WorkError
from gemma4vec.model.inference.cached_embedder import CachedEmbedder
from gemma4vec.model.inference.vector_store import LIMIT_VARIABLE, VectorStore, folder_bytes, vectors_folder
from gemma4vec.text.prompts import Document


class Model:
    """Vectors from the text's bytes; counts what it is asked."""

    def __init__(self, fingerprint: str = "f", prompts: str = "p", dimension: int = 8):
        self.name, self.fingerprint, self.prompts, self.dimension = "model", fingerprint, prompts, dimension
        self.asked: list[Any] = []

    def describe(self) -> dict[str, Any]:
        return {"kind": "test", "prompts": self.prompts, "dtype": "fp32"}

    def encode_query(self, texts: Any, *, progress: Any = None) -> np.ndarray:
        return self._encode("q", texts)

    def encode_document(self, texts: Any, *, progress: Any = None) -> np.ndarray:
        return self._encode("d", texts)

    def encode(self, texts: Any, prompt: str = "", *, progress: Any = None) -> np.ndarray:
        return self._encode(prompt, texts)

    def _encode(self, role: str, texts: Any) -> np.ndarray:
        self.asked += list(texts)
        rows = [np.random.default_rng(list(f"{role}{text}".encode())).normal(size=self.dimension) for text in texts]
        vectors_ND = np.array(rows, dtype=np.float32).reshape(len(rows), self.dimension)
        return vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)


TEXTS = ["a", "b", "a", "", "längerer Text", "c" * 5000]


def cached(**settings: Any) -> CachedEmbedder:
    return CachedEmbedder(Model(**settings))  # type: ignore[arg-type]


def test_a_second_time_nothing_is_computed_and_the_vectors_are_the_same() -> None:
    plain = Model()
    first, second = cached(), cached()
    for method, texts in (
        ("encode_query", TEXTS),
        ("encode_document", [Document(text, "t" if text else None) for text in TEXTS]),
        ("encode", TEXTS),
    ):
        expected = getattr(plain, method)(texts)
        assert np.array_equal(getattr(first, method)(texts), expected)
    assert first.computed == 3 * len(TEXTS)
    second = cached()
    calls: list[tuple[int, int]] = []
    assert np.array_equal(second.encode_query(TEXTS, progress=lambda *at: calls.append(at)), plain.encode_query(TEXTS))
    assert (second.computed, second.found, second.model.asked) == (0, len(TEXTS), [])  # type: ignore[union-attr]
    assert calls == [(len(TEXTS), len(TEXTS))]
    assert np.array_equal(second.encode_query(["new", *TEXTS]), plain.encode_query(["new", *TEXTS]))
    assert second.model.asked == ["new"]  # type: ignore[union-attr]
    assert second.encode_query([]).shape == (0, 8)


def test_an_interrupted_encoding_keeps_the_parts_that_it_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemma4vec.model.inference.cached_embedder._PART", 3)
    texts = ["dddd", "a", "ccc", "bb", "eeeee", "ffffff", "ggggggg"]

    class Interrupted(Model):
        def encode_document(self, texts: Any, *, progress: Any = None) -> np.ndarray:
            if "ggggggg" in texts:
                raise KeyboardInterrupt
            progress(len(texts), len(texts))
            return super().encode_document(texts)

    first = CachedEmbedder(Interrupted())  # type: ignore[arg-type]
    seen: list[tuple[int, int]] = []
    with pytest.raises(KeyboardInterrupt):
        first.encode_document(texts, progress=lambda done, total: seen.append((done, total)))
    assert first.computed == 6 and seen == [(3, 7), (6, 7)]
    second = cached()
    vectors_ND = second.encode_document(texts)
    assert (second.found, second.computed) == (6, 1)
    np.testing.assert_array_equal(vectors_ND, Model()._encode("d", texts))


def test_another_model_role_title_or_prompt_has_other_vectors() -> None:
    cached().encode_query(["x"])
    for other in (cached(fingerprint="g"), cached(prompts="other")):
        other.encode_query(["x"])
        assert other.computed == 1
    same = cached()
    same.encode_document(["x", Document("x", "title"), Document("itlex", "t")])
    same.encode(["x"], "q: ")
    same.encode(["x"], "d: ")
    assert (same.found, same.computed) == (0, 5)
    same.encode_document([Document("x", None), Document("x", "")])
    assert same.found == 2


def test_a_damaged_segment_is_computed_again_and_a_broken_vector_is_not_kept() -> None:
    cached().encode_query(TEXTS)
    (segment,) = vectors_folder().glob("*/*.vectors")
    data = segment.read_bytes()
    for damaged in (data[:-3], data[:50], b"", b"nothing of the kind" * 20, data.replace(b"}", b"{", 1)):
        segment.write_bytes(damaged)
        again = cached()
        assert again.encode_query(["a"]).shape == (1, 8) and again.computed == 1
        for other in set(vectors_folder().glob("*/*.vectors")) - {segment}:
            other.unlink()

    class Broken(Model):
        def _encode(self, role: str, texts: Any) -> np.ndarray:
            return super()._encode(role, texts) * np.nan

    for _ in range(2):
        broken = CachedEmbedder(Broken(fingerprint="broken"))  # type: ignore[arg-type]
        assert np.isnan(broken.encode_query(["x"])).all() and broken.computed == 1


@pytest.mark.parametrize("part", ["key", "vector"])
def test_a_single_wrong_bit_is_damage_and_computed_again(part: str, log_lines: list[str]) -> None:
    right = cached().encode_query(["a", "b"])
    (segment,) = vectors_folder().glob("*/*.vectors")
    content = bytearray(segment.read_bytes())
    # The second row of the keys, which begin after a header of 128 bytes, or the second vector.
    content[128 + 16 if part == "key" else content.index(right[1].tobytes())] ^= 1
    segment.write_bytes(content)
    again = cached()
    assert np.array_equal(again.encode_query(["a", "b"]), right) and again.computed == 1
    assert len([line for line in log_lines if "is damaged" in line and segment.name in line]) == (part == "vector")
    last = cached()
    assert np.array_equal(last.encode_query(["a", "b"]), right)
    assert last.computed == (1 if part == "vector" else 0)  # "a" went with the damaged segment


def test_a_cache_that_cannot_be_written_is_done_without(log_lines: list[str]) -> None:
    vectors_folder().parent.mkdir(parents=True, exist_ok=True)
    vectors_folder().write_text("a file where the folder should be")
    for _ in range(2):
        one = cached()
        assert one.encode_query(["a"]).shape == (1, 8) and one.computed == 1
    assert len([line for line in log_lines if line.startswith("vectors of model not cached: could not write")]) == 1


def test_the_limit_holds_and_the_model_used_longest_ago_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, str(100_000 / 1e9))
    for number, name in enumerate(("old", "middle", "new")):
        model = cached(fingerprint=name, dimension=100)
        model.encode_query([f"{name} {row}" for row in range(90)])  # 37 kB
        for used in vectors_folder().glob("*/used"):
            if json.loads((used.parent / "model.json").read_text())["fingerprint"] == name:
                os.utime(used, (1000 + number, 1000 + number))
    kept = {json.loads(path.read_text())["fingerprint"] for path in vectors_folder().glob("*/model.json")}
    assert kept == {"middle", "new"}
    one = cached(fingerprint="new", dimension=100)
    for start in range(0, 900, 90):
        one.encode_query([f"more {row}" for row in range(start, start + 90)])
    assert sum(folder_bytes(folder) for folder in vectors_folder().iterdir()) <= 105_000
    large = cached(fingerprint="large", dimension=100)
    large.encode_query([f"large {row}" for row in range(400)])
    assert not [path for path in vectors_folder().glob("*/model.json") if "large" in path.read_text()]
    monkeypatch.setenv(LIMIT_VARIABLE, "much")
    with pytest.raises(WorkError, match="not a number of gigabytes"):
        cached(fingerprint="x").encode_query(["x"])


def test_processes_may_write_at_a_time(tmp_path: Path) -> None:
    program = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from gemma4vec.model.inference.vector_store import VectorStore\n"
        "store = VectorStore(Path(sys.argv[1]), 'm', 4, {})\n"
        "for row in range(20):\n"
        "    key = (int(sys.argv[2]) * 1000 + row).to_bytes(16, 'little')\n"
        "    store.put([key], np.full((1, 4), int(sys.argv[2]) * 1000 + row, np.float32))\n"
    )
    started = [forked.Popen([sys.executable, "-c", program, str(tmp_path), str(n)]) for n in range(3)]
    assert [process.wait() for process in started] == [0, 0, 0]
    keys = [(n * 1000 + row).to_bytes(16, "little") for n in range(3) for row in range(20)]
    vectors_ND, missing = VectorStore(tmp_path, "m", 4, {}).get(keys)
    assert missing == [] and vectors_ND[:, 0].tolist() == [n * 1000 + row for n in range(3) for row in range(20)]


def test_the_command_lists_and_clears(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["cache"]) == 0
    assert "0.00 of 10 GB" in capsys.readouterr().out
    cached().encode_query(TEXTS)
    assert execute(["cache", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["models"]
    assert found["model"] == "model" and found["bytes"] > 5 * 8 * 4
    assert execute(["cache", "clear", "--model", "other"]) == 2
    assert execute(["cache", "clear"]) == 0
    assert not list(vectors_folder().glob("*"))


def test_the_command_knows_what_else_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    kept = vectors_folder().parent / "snapshots" / "run" / "model"
    kept.mkdir(parents=True)
    (kept / "weights").write_bytes(bytes(3_000_000))
    cached().encode_query(TEXTS)
    assert execute(["cache"]) == 0
    shown = capsys.readouterr().out
    assert "snapshots" in shown and "3.0 MB" in shown
    assert execute(["cache", "clear", "--folder", "vector"]) == 2
    assert "--folder vector: use one of bases" in capsys.readouterr().err
    assert execute(["cache", "clear", "--folder", "snapshots"]) == 0
    assert not kept.exists() and list(vectors_folder().glob("*"))


def test_what_is_open_stays_readable_when_another_process_clears_the_folder() -> None:
    ours = cached()
    first = ours.encode_query(TEXTS)
    shutil.rmtree(vectors_folder())
    assert np.array_equal(ours.encode_query(TEXTS), first) and ours.computed == 6
    assert ours.encode_query(["another text"]).shape == (1, 8)  # and goes on keeping what is new
    assert cached().encode_query(["another text"]).shape == (1, 8) and cached().found == 0
