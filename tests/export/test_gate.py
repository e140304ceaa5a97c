"""The gate passes a right export and refuses each seeded fault, in the real programs, and names the fault."""

import dataclasses
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded_looks import recorded_looks

from gemma4vec.data.suites.retrieval import load_suite
from gemma4vec.errors import InputError, WorkError
from gemma4vec.export.export_model import ParityError, export_model
from gemma4vec.export.formats import gguf_file
from gemma4vec.export.formats.gguf_tokenizer import GgufTokenizer
from gemma4vec.export.formats.write_folder import write_sentence_transformers
from gemma4vec.export.parity.gate import compare_export
from gemma4vec.export.parity.report import ParityReport
from gemma4vec.export.runtimes.job import Answer, RoleText, answer
from gemma4vec.export.runtimes.run_sentence_transformers import SentenceTransformers
from gemma4vec.export.source import Source, open_source


def written(folder: Path) -> list[str]:
    """Names in a folder, without the cache and the ledger of the test."""
    return sorted(path.name for path in folder.iterdir() if path.name not in ("cache", "runs"))


def test_a_right_gguf_is_renamed_into_place_with_its_numbers(both: Path, suite: Path, tmp_path: Path) -> None:
    made = export_model(str(both), "gguf", dtype="f16", out=tmp_path / "out", suite=str(suite))
    assert made.path == tmp_path / "out" / "tiny-f16.gguf" and made.path.is_file()
    found = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert found["passed"] and found["problems"] == [] and found["texts"] >= 256
    assert found["cosine_min"] >= 0.9999 and found["alone_min"] >= 0.99999
    assert found["tokens"] >= 230 and found["over_limit"] == "refuses"
    assert (found["dimension"], found["width"]) == (24, 32)
    assert found["ranking"]["equivalent"] and found["ranking"]["queries"] == 30
    assert written(tmp_path) == ["out"]
    ((command, name, fingerprint, metrics),) = recorded_looks()
    assert (command, name, metrics) == ("export", found["ranking"]["suite"], ["ndcg@10"])
    assert fingerprint == open_source(str(both)).embedder.fingerprint  # in 16 bits it is the model


def test_a_causal_gguf_has_every_token_of_the_limit(
    causal: Path, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gemma4vec.export.runtimes.ask.subprocess", subprocess)  # a process from its very start
    made = export_model(str(causal), "gguf", dtype="f32", out=tmp_path / "out", suite=str(suite))
    assert made.report.cosine_min is not None and made.report.cosine_min >= 0.9999
    assert made.report.over_limit == "refuses"


Fault = Callable[[pytest.MonkeyPatch], None]


def other_architecture(patch: pytest.MonkeyPatch) -> None:
    real = gguf_file.GGUFWriter
    patch.setattr(gguf_file, "GGUFWriter", lambda file, arch: real(file, "gemma-embedding"))


def no_head(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gguf_file, "folded_head", lambda *_: None)


def no_eos(patch: pytest.MonkeyPatch) -> None:
    real = gguf_file.read_gguf_tokenizer

    def read(*arguments: Any) -> GgufTokenizer:
        return dataclasses.replace(real(*arguments), add_eos=False)

    patch.setattr(gguf_file, "read_gguf_tokenizer", read)


def half_window(patch: pytest.MonkeyPatch) -> None:
    real = gguf_file.GGUFWriter.add_sliding_window
    patch.setattr(gguf_file.GGUFWriter, "add_sliding_window", lambda self, width: real(self, width // 2))


def norms_without_one(patch: pytest.MonkeyPatch) -> None:
    real = gguf_file.backbone_weights

    def weights(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
        for name, values in real(folder):
            yield name, values - 1 if name.endswith("norm.weight") else values

    patch.setattr(gguf_file, "backbone_weights", weights)


def no_prompt(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gguf_file, "QUERY_PROMPT", "gemma4vec.other.query")
    patch.setattr(gguf_file, "DOCUMENT_PROMPT", "gemma4vec.other.document")


def other_pooling(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gguf_file, "POOLING", {"mean": "LAST", "last_token": "MEAN"})


@pytest.mark.parametrize(
    ("model", "fault", "cause"),
    [
        ("causal", other_architecture, "attention is bidirectional, not causal"),
        ("causal", no_eos, "EOS is missing"),
        ("causal", half_window, "the sliding window is half as wide"),
        ("both", no_head, "the head (dense layers) is left out"),
        ("both", norms_without_one, "norm weights lack the 1"),
        ("both", no_prompt, "the prompt is left out"),
        ("both", other_pooling, "pooling is last_token, not mean"),
    ],
)
def test_a_faulty_gguf_is_refused_with_its_cause(
    request: pytest.FixtureRequest,
    suite: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    fault: Fault,
    cause: str,
) -> None:
    fault(monkeypatch)
    run: Path = request.getfixturevalue(model)
    with pytest.raises(ParityError) as caught:
        export_model(str(run), "gguf", dtype="f32", out=tmp_path / "out", suite=str(suite))
    line = str(caught.value)
    assert f"likely cause: {cause}" in line and "\n" not in line and ("query '" in line or "document '" in line)
    assert written(tmp_path) == []


def test_four_bits_without_training_for_them_are_refused(causal: Path, suite: Path, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="likely cause: q4_0 loses too much"):
        export_model(str(causal), "gguf", dtype="q4_0", out=tmp_path / "out", suite=str(suite))
    assert written(tmp_path) == []
    # The error says both scores. In four bits it is another model, which counts.
    own = open_source(str(causal)).embedder.fingerprint
    assert [(command, model) for command, _, model, _ in recorded_looks()] == [
        ("export", own),
        ("export", f"{own} q4_0"),
    ]


def test_a_program_that_aborts_is_one_line(
    both: Path, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp ends its process where a head's width is not the model's."""
    # From its very start: the state of a forked one, with all libraries in it, takes long to write down.
    monkeypatch.setattr("gemma4vec.export.runtimes.ask.subprocess", subprocess)
    real = gguf_file.GGUFWriter.add_dense_features_dims
    monkeypatch.setattr(
        gguf_file.GGUFWriter, "add_dense_features_dims", lambda self, name, _, out: real(self, name, 48, out)
    )
    with pytest.raises(WorkError, match=r"llama.cpp cannot run tiny-f32.gguf: .*SIGABRT.*dense_2_feat_in"):
        export_model(str(both), "gguf", dtype="f32", out=tmp_path / "out", suite=str(suite))
    assert written(tmp_path) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(
    both: Path, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource
    import signal

    from gemma4vec.export import export_model as exporting

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    real = exporting.write_format

    def on_a_full_disk(*arguments: Any) -> Path:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        try:
            return real(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)

    monkeypatch.setattr(exporting, "write_format", on_a_full_disk)
    with pytest.raises(WorkError, match="could not write") as caught:
        export_model(str(both), "gguf", dtype="f32", out=tmp_path / "out", suite=str(suite))
    assert "\n" not in str(caught.value) and written(tmp_path) == []


def compared(source: Source, folder: Path, suite: Path, dimension: int | None = None) -> ParityReport:
    """Compare a sentence-transformers folder in this process."""
    runtime = SentenceTransformers(folder, 1)

    def ask(texts: Sequence[RoleText], calls: Sequence[Sequence[int]], tokens_of: Sequence[int]) -> Answer:
        return answer(runtime, [[texts[i] for i in call] for call in calls], [texts[i] for i in tokens_of])

    length = source.check_dimension(dimension)
    return compare_export(source, load_suite(suite), ask, dtype="f32", dimension=length)


def edit(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    file = folder / name
    file.write_text(json.dumps(change(json.loads(file.read_text()))))


def test_a_right_folder_passes_and_so_does_a_shorter_one(
    sources: dict[str, Source], suite: Path, tmp_path: Path
) -> None:
    for name, dimension in (("both", None), ("causal", None), ("both", 16)):
        folder = tmp_path / f"{name}-{dimension}"
        write_sentence_transformers(sources[name], folder, dimension or sources[name].embedder.dimension)
        report = compared(sources[name], folder, suite, dimension)
        assert report.problems == [] and report.over_limit == "truncates" and report.tokens >= 240
        assert report.width == report.dimension


def head_left_out(folder: Path) -> None:
    edit(folder, "modules.json", lambda modules: [one for one in modules if not one["type"].endswith(".Dense")])


def prompts_left_out(folder: Path) -> None:
    edit(folder, "config_sentence_transformers.json", lambda found: found | {"prompts": {"query": "", "document": ""}})


def attention_flipped(folder: Path) -> None:
    edit(folder, "config.json", lambda found: found | {"use_bidirectional_attention": False, "is_causal": True})


def window_halved(folder: Path) -> None:
    edit(folder, "config.json", lambda found: found | {"sliding_window": found["sliding_window"] // 2})


def eos_left_out(folder: Path) -> None:
    def change(found: Any) -> Any:
        found["post_processor"]["single"].pop()
        return found

    edit(folder, "tokenizer.json", change)


@pytest.mark.parametrize(
    ("model", "fault", "cause"),
    [
        ("both", head_left_out, "the head (dense layers) is left out"),
        ("both", prompts_left_out, "the prompt is left out"),
        ("both", attention_flipped, "attention is causal, not bidirectional"),
        ("both", window_halved, "the sliding window is half as wide"),
        ("causal", eos_left_out, "EOS is missing"),
    ],
)
def test_a_faulty_folder_is_refused_with_its_cause(
    sources: dict[str, Source], suite: Path, tmp_path: Path, model: str, fault: Callable[[Path], None], cause: str
) -> None:
    folder = shutil.copytree(sources[model].folder, tmp_path / "copy")
    fault(folder)
    report = compared(sources[model], folder, suite)
    assert not report.passed and report.cause.startswith(cause), report.line()


def test_vectors_that_are_wrong_in_themselves_are_named(sources: dict[str, Source], suite: Path) -> None:
    source = sources["both"]

    def asked(change: Callable[[np.ndarray], np.ndarray]) -> ParityReport:
        from gemma4vec.export.parity.reference import Reference

        reference = Reference(source.embedder, 24)

        def ask(texts: Sequence[RoleText], calls: Sequence[Sequence[int]], tokens_of: Sequence[int]) -> Answer:
            vectors_ND = reference.vectors(texts)[[i for call in calls for i in call]]
            return Answer("a program", change(vectors_ND), {}, [None for _ in tokens_of])

        return compare_export(source, load_suite(suite), ask, dtype="f32", dimension=24)

    assert asked(lambda vectors: vectors).problems == []
    (line,) = asked(lambda vectors: vectors[:, :20]).problems
    assert line == "its vectors have 20 dimensions and the model's 24"
    broken = asked(lambda vectors: np.where(np.arange(len(vectors))[:, None] == 7, np.nan, vectors))
    assert broken.problems[0].startswith("1 vectors have values that are not finite, first document '")
    (long,) = asked(lambda vectors: 2 * vectors).problems
    assert "has length 2.0000, not 1" in long
    rng = np.random.default_rng(0)

    def batch_dependent(vectors: np.ndarray) -> np.ndarray:
        noise = np.zeros_like(vectors)
        noise[260:300] = 0.1 * rng.normal(size=(40, 24))
        return (vectors + noise) / np.linalg.norm(vectors + noise, axis=1, keepdims=True)

    assert any(line.startswith("a vector depends on the batch") for line in asked(batch_dependent).problems)


def test_bad_input_is_refused_before_anything_is_written(both: Path, suite: Path, tmp_path: Path) -> None:
    def refused(message: str, **settings: Any) -> None:
        with pytest.raises(InputError, match=message):
            export_model(str(both), "st", **{"out": tmp_path / "out", "suite": str(suite)} | settings)

    refused("names no dev suite on which to compare rankings; name one with --suite", suite=None)
    final = shutil.copytree(suite, tmp_path / "final")
    (final / "suite.yaml").write_text("name: kept\nrole: final\n")
    refused("kept is a final suite", suite=str(final))
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("")
    refused("holds other files", out=other)
    refused("is a file; name a folder", out=other / "thesis.txt")
    refused("was not trained for it", dimension=12)
    assert written(tmp_path) == ["final", "other"]
