"""`gemma4vec quantize`: the folder opens everywhere with the weights that were scored; GGUF holds them exactly."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model
import torch
from safetensors.torch import load_file, save_file
from small_suite import write_small_suite
from tiny_gemma import save_tiny_run
from tiny_run import write_rows_file

from gemma4vec.cli.main import execute
from gemma4vec.errors import InputError, WorkError
from gemma4vec.export.formats.gguf_file import write_gguf
from gemma4vec.export.formats.write_folder import check_format_holds
from gemma4vec.export.source import open_source
from gemma4vec.ledger.lineage import Lineage
from gemma4vec.model.adapters.grids import dequantize
from gemma4vec.model.bases.gguf_file import GgufFile
from gemma4vec.model.bases.gguf_model import gguf_name
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.save.model_lineage import lineage_of_folder
from gemma4vec.model.save.quantization import read_codes, saved_grids
from gemma4vec.model.save.read_model import read_settings
from gemma4vec.pipeline.quantize import quantize_model as module
from gemma4vec.pipeline.quantize.quantize_model import quantize_model
from gemma4vec.pipeline.quantize.train_quantized import train_quantized

TEXTS = ["read the file", "sort the tree of nodes", "x"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bidirectional, mean, two dense layers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny_model.COMMON, "intermediate_size", 64)
        return save_tiny_run(
            tmp_path_factory.mktemp("source"),
            attention="bidirectional",
            readout={"name": "mean"},
            head={"widths": [48, 24]},
        )


@pytest.fixture(scope="module")
def quantized(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = tmp_path_factory.mktemp("quantized")
    return {scheme: quantize_model(run, scheme, made / scheme).folder for scheme in ("q8_0", "q4_0", "mixed")}


@pytest.mark.parametrize("scheme", ["q8_0", "q4_0", "mixed"])
def test_it_opens_as_the_same_model_in_sentence_transformers(quantized: dict[str, Path], scheme: str) -> None:
    from sentence_transformers import SentenceTransformer

    ours = Embedder.load(quantized[scheme], dtype="fp32").encode_query(TEXTS)
    theirs = SentenceTransformer(str(quantized[scheme]), device="cpu").encode_query(TEXTS)
    assert np.allclose(ours, theirs, atol=1e-5)
    settings = read_settings(quantized[scheme])
    assert settings["quantization"]["scheme"] == scheme and settings["quantization"]["source"] == "tiny"
    card = (quantized[scheme] / "README.md").read_text()
    assert card.count("## Quantization") == 1 and "rounded after training, from `tiny`" in card


def test_errors_fall_with_the_bits(run: Path, quantized: dict[str, Path]) -> None:
    raw = Embedder.load(run, dtype="fp32").encode_query(TEXTS)
    cosine = {
        s: float((raw * Embedder.load(f, dtype="fp32").encode_query(TEXTS)).sum(1).mean()) for s, f in quantized.items()
    }
    assert 1 > cosine["q8_0"] > 0.999 > cosine["q4_0"] and cosine["mixed"] < 0.999


@pytest.mark.parametrize("scheme", ["q8_0", "q4_0"])
def test_a_gguf_file_of_the_scheme_holds_the_weights_bit_for_bit(
    quantized: dict[str, Path], scheme: str, tmp_path: Path
) -> None:
    source = open_source(str(quantized[scheme]))
    write_gguf(source, tmp_path / "model.gguf", scheme, 24)
    file = GgufFile(tmp_path / "model.gguf")
    entries = {entry.name: entry for entry in file.tensors}
    weights = load_file(quantized[scheme] / "model.safetensors")
    grids = saved_grids(quantized[scheme], scheme)
    packed = {name for name, entry in entries.items() if entry.type_number not in (0, 1)}
    assert packed == {gguf_name(name, "gemma3") for name in grids}  # what the exporter quantizes, the scheme does
    for name in grids:
        assert np.array_equal(file.read(entries[gguf_name(name, "gemma3")]), weights[name].numpy())
    changed = shutil.copytree(quantized[scheme], tmp_path / "changed")
    weights["embed_tokens.weight"][3, 5] += 1e-3
    save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WorkError, match=r"token_embd\.weight is not on the grid"):
        write_gguf(replace(source, folder=changed), tmp_path / "other.gguf", scheme, 24)


def test_mixed_has_codes_and_no_gguf(quantized: dict[str, Path]) -> None:
    codes = read_codes(quantized["mixed"])
    grids = saved_grids(quantized["mixed"], "mixed")
    assert codes.keys() == grids.keys() and {"head.0", "head.1", "embed_tokens.weight"} < codes.keys()
    weights = load_file(quantized["mixed"] / "model.safetensors")
    for name, found in codes.items():
        limit = 127 if "self_attn" in name else 7
        assert found.codes_OI.abs().max() == limit
        if name in weights:
            assert torch.equal(dequantize(found), weights[name])
    with pytest.raises(InputError, match="gguf cannot hold tiny-mixed, quantized as mixed"):
        check_format_holds(open_source(str(quantized["mixed"])), "gguf", 24)


def test_nothing_is_written_where_the_opened_model_is_another(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Embedder.load

    def other(*arguments: object, **settings: object) -> Embedder:
        found = real(*arguments, **settings)  # type: ignore[arg-type]
        assert isinstance(found, Embedder)
        with torch.no_grad():
            found.encoder.head_layers[0].weight[0, 0] += 1
        return found

    monkeypatch.setattr(module.Embedder, "load", other)
    with pytest.raises(WorkError, match=r"head\.0: what was written differs from what was evaluated"):
        quantize_model(run, "mixed", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_it_keeps_the_lineage_while_the_weights_are_its_own(quantized: dict[str, Path], tmp_path: Path) -> None:
    folder = quantized["mixed"]
    known = Lineage(data={"run": {"0-a": {}}}, unknown=("x",))
    settings = read_settings(folder)
    (folder / "gemma4vec.json").write_text(json.dumps(settings | {"lineage": known.as_json()}))
    assert lineage_of_folder(folder, None, "m") == known
    (folder / "gemma4vec.json").write_text(json.dumps(settings | {"lineage": known.as_json(), "fingerprint": "0" * 64}))
    assert lineage_of_folder(folder, None, "m") != known
    (folder / "gemma4vec.json").write_text(json.dumps(settings))


def test_bad_input_is_one_line(run: Path, quantized: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no scheme 'q5'"):
        quantize_model(run, "q5", tmp_path / "out")
    with pytest.raises(InputError, match="is quantized already, as mixed"):
        quantize_model(quantized["mixed"], "q4_0", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("a")
    with pytest.raises(InputError, match="holds other files"):
        quantize_model(run, "q4_0", tmp_path / "full")
    base = run.parent / "base"
    with pytest.raises(InputError, match="was not saved by gemma4vec"):
        quantize_model(base, "q4_0", tmp_path / "out")
    odd = save_tiny_run(tmp_path / "odd", attention="bidirectional")  # rows of 48 values
    with pytest.raises(InputError, match=r"q4_0: the rows of layers\.0\.mlp\.down_proj\.weight have 48 values"):
        quantize_model(odd, "q4_0", tmp_path / "out")
    (odd / "model" / "modules.json").write_text("[{")
    with pytest.raises(InputError, match=r"modules\.json cannot be read \(not JSON"):
        quantize_model(odd / "model", "mixed", tmp_path / "out")
    assert execute(["quantize", str(run)]) == 2 and not (tmp_path / "out").exists()


def test_the_command_scores_before_and_after(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = write_small_suite(tmp_path / "suite")
    out = tmp_path / "out"
    code = execute(["quantize", str(run), "--scheme", "q8_0", "--out", str(out), "--dev", str(suite), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == 0 and found["matrices"] == 15 and 0 < found["error"] < 0.01
    (score,) = found["dev"]
    assert score["metric"] == "ndcg@10" and (out / "gemma4vec.json").is_file()


def test_a_model_trains_for_a_scheme_with_itself_as_teacher_and_the_same_call_goes_on(
    run: Path, tmp_path: Path
) -> None:
    rows = write_rows_file(tmp_path / "rows.jsonl")
    overrides = [
        f"stages.0.data=[{{name: rows, path: {rows}}}]",
        "stages.0.batch={rows: 4}",
        "stages.0.layout={row_tokens: 48, tokens_per_forward: 192, compile: false}",
        "stages.0.budget={steps: 2}",
        "model.dtype=fp32",
    ]
    made = train_quantized(run, "mixed", "embeddinggemma/quantize", tmp_path / "out", overrides=overrides)
    assert made.run is not None and made.trained and made.source == "tiny"
    settings = read_settings(made.folder)
    assert settings["quantization"]["trained"] is True and settings["quantization"]["source"] == "tiny"
    manifest = json.loads((made.run / "manifest.json").read_text())
    assert {"model.start", "stages.0.task.terms.1"} < manifest["made_from"].keys()
    teacher, start = (manifest["made_from"][key]["weights"] for key in ("stages.0.task.terms.1", "model.start"))
    assert teacher == start
    again = train_quantized(run, "mixed", "embeddinggemma/quantize", tmp_path / "out", overrides=overrides)
    assert replace(again, comparisons=()) == replace(made, comparisons=())  # the same run, not another one
    vectors = Embedder.load(made.folder, dtype="fp32").encode_query(TEXTS)
    assert vectors.shape == (3, 24) and np.isfinite(vectors).all()
