"""`gemma4vec invert`: its output, its evaluation, and every bad input in one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import TEXTS
from tiny_saved import save_tiny

from gemma4vec.cli.main import execute
from gemma4vec.files import home
from gemma4vec.inversion import invert
from gemma4vec.inversion.evaluate import DECODER, NEAREST, RIDGE, SHUFFLED, TRUE, UNIGRAMS
from gemma4vec.inversion.read_vectors import read_vectors
from gemma4vec.model.inference.embedder import Embedder
from gemma4vec.model.inverter.decoder_folder import read_facts, stored_texts
from gemma4vec.text.text_hash import words_key
from gemma4vec.ui.content.decoder_work import DecoderWork, ListedDecoder, ListedModel
from gemma4vec.ui.content.kept_results import kept_files, load_kept
from gemma4vec.ui.content.search_worker import SearchWorker


def run(trained: Any, *words: str) -> int:
    return execute(["invert", str(trained.encoder), "--decoder", str(trained.run), "--dtype", "fp32", *words])


def test_texts_come_back_with_their_cosines_and_the_nearest_training_text(
    trained: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [TEXTS[5], TEXTS[300]]
    options = [word for text in texts for word in ("--text", text)]
    assert run(trained, *options, "--n", "4", "--edit", "1", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    encoder = Embedder.load(trained.encoder, dtype="fp32")
    targets = encoder.encode_query(texts)
    assert [row["given"] for row in found["rows"]] == texts and found["vectors"] == 2 and found["role"] == "query"
    stored, vectors = stored_texts(trained.run / "model", read_facts(trained.run / "model"))
    for row, target in zip(found["rows"], targets, strict=True):
        assert row["cosine"] == pytest.approx(float(encoder.encode_query([row["text"]])[0] @ target), abs=1e-4)
        assert row["nearest"] == stored[int((vectors @ target).argmax())]
        assert row["nearest_cosine"] == pytest.approx(float((vectors @ target).max()), abs=1e-4)
    assert run(trained, *options, "--n", "1") == 0
    shown = capsys.readouterr().out
    assert f"given    {texts[0]}\n" in shown and "(nearest training text)" in shown and "(greedy)" in shown


def test_a_kept_result_is_what_was_printed(trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(trained, "--text", TEXTS[5], "--n", "2", "--keep", "--json") == 0
    printed = capsys.readouterr()
    (file,) = kept_files(home(), "inversions")
    kept = load_kept(file)
    assert str(file) in printed.err and {**json.loads(printed.out), **kept} == kept and kept["kind"] == "texts"


def test_the_window_inverts_as_the_command_does(trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    decoder = ListedDecoder("d", "d", trained.run, "e", "query", 12)
    worker = SearchWorker(lambda run: Embedder.load(run, dtype="fp32"))
    found = DecoderWork(worker).invert(ListedModel("m", "m", trained.encoder), decoder, TEXTS[5], 4)
    assert run(trained, "--text", TEXTS[5], "--n", "4", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert found["candidates"][0]["text"] == row["text"] and found["nearest"] == row["nearest"]
    assert found["candidates"][0]["cosine"] == pytest.approx(row["cosine"], abs=1e-4)


def test_vectors_of_a_file_are_those_of_the_texts(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = Embedder.load(trained.encoder, dtype="fp32")
    np.save(tmp_path / "v.npy", 3 * encoder.encode_query(TEXTS[:20]).astype(np.float16))
    assert run(trained, "--vectors", str(tmp_path / "v.npy"), "--n", "2") == 2
    assert "--normalize" in capsys.readouterr().err
    assert run(trained, "--vectors", str(tmp_path / "v.npy"), "--n", "2", "--normalize", "--json") == 0
    from_file = json.loads(capsys.readouterr().out)["rows"]
    assert run(trained, *[word for text in TEXTS[:20] for word in ("--text", text)], "--n", "2", "--json") == 0
    from_texts = json.loads(capsys.readouterr().out)["rows"]
    same = [one["text"] == other["text"] for one, other in zip(from_file, from_texts, strict=True)]
    assert len(same) == 20 and np.mean(same) > 0.9 and "given" not in from_file[0]


def test_an_evaluation_has_floors_ceiling_and_shuffled_vectors(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n\n".join(TEXTS) + "\n")
    assert run(trained, "--evaluate", str(texts), "--n", "2", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    hashes = set(read_facts(trained.run / "model").held_out)
    held_out = [text for text in dict.fromkeys(TEXTS) if words_key(text) in hashes]
    assert found["texts"] == len(held_out) == 40 and found["left_out"]["trained on or not known"] >= 400
    rows = found["rows"]
    assert set(rows) == {DECODER, SHUFFLED, NEAREST, RIDGE, UNIGRAMS, TRUE}
    mean = {name: row["f1"]["mean"] for name, row in rows.items()}
    assert mean[TRUE] == 1 and rows[TRUE]["cosine"]["mean"] == pytest.approx(1, abs=1e-5)
    assert rows[NEAREST]["exact"]["mean"] == 0
    assert mean[DECODER] > mean[SHUFFLED] + 0.15 and mean[DECODER] > mean[UNIGRAMS]
    over = found["differences"][f"f1 over {SHUFFLED}"]
    assert over["mean"] == pytest.approx(mean[DECODER] - mean[SHUFFLED], abs=1e-9) and over["low"] > 0
    encoder = Embedder.load(trained.encoder, dtype="fp32")
    stored, vectors = stored_texts(trained.run / "model", read_facts(trained.run / "model"))
    nearest = [stored[row] for row in (encoder.encode_query(held_out) @ vectors.T).argmax(axis=1)]
    words = [(set(one.split()), set(other.split())) for one, other in zip(nearest, held_out, strict=True)]
    assert mean[NEAREST] == pytest.approx(np.mean([2 * len(a & b) / (len(a) + len(b)) for a, b in words]), abs=0.02)
    assert run(trained, "--evaluate", str(texts), "--n", "1") == 0
    shown = capsys.readouterr().out
    assert "40 texts that the decoder was not trained on" in shown and "A lower bound" in shown


def test_figures_of_each_source_and_of_short_texts_are_those_of_their_texts_alone(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hashes = set(read_facts(trained.run / "model").held_out)
    held_out = [text for text in dict.fromkeys(TEXTS) if words_key(text) in hashes]
    for name, part in (("one", held_out[:25]), ("two", held_out[25:])):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(part) + "\n")
    files = [word for name in ("one", "two") for word in ("--evaluate", str(tmp_path / f"{name}.txt"))]
    assert run(trained, *files, "--n", "1", "--json") == 0
    both = json.loads(capsys.readouterr().out)
    assert both["sources"] == {"one": 25, "two": 15} and list(both["parts"]) == ["one"]  # 15 are too few
    assert run(trained, *files[:2], "--n", "1", "--json") == 0
    alone = json.loads(capsys.readouterr().out)
    for row in (DECODER, NEAREST, RIDGE, TRUE):  # not other texts' vectors: they are of the texts at hand
        for measure, figure in alone["rows"][row].items():
            assert both["parts"]["one"]["rows"][row][measure] == pytest.approx(figure, abs=1e-6)
    for name in (f"cosine over {NEAREST}", f"f1 over {RIDGE}"):
        assert both["parts"]["one"]["differences"][name] == pytest.approx(alone["differences"][name], abs=1e-6)
    for name, one in both["differences"].items():
        assert (one["p"] < 0.05) == (one["low"] * one["high"] > 0), name
    short = both["short"]
    assert short["tokens"] == 8 and 0 < short["texts"] <= 40 and ("rows" in short) == (short["texts"] >= 20)


def test_a_decoder_as_it_was_after_a_kept_step(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n\n".join(TEXTS) + "\n")
    found = {}
    for step in (None, 30, 120):
        words = [] if step is None else ["--step", str(step)]
        assert run(trained, "--evaluate", str(texts), "--n", "1", "--json", *words) == 0
        found[step] = json.loads(capsys.readouterr().out)
        assert found[step].pop("step") == step
    assert found[120] == found[None]  # the last step's weights are the finished decoder's
    f1 = {step: one["rows"][DECODER]["f1"]["mean"] for step, one in found.items()}
    assert f1[30] < f1[120] - 0.1 and found[30]["texts"] == 40
    assert run(trained, "--text", "read the file", "--step", "31") == 2
    assert "kept the weights of other steps (those of 30, 120)" in capsys.readouterr().err
    copied = tmp_path / "copied"
    shutil.copytree(trained.run / "model", copied)
    words = ["invert", str(trained.encoder), "--decoder", str(copied), "--text", "a", "--step", "30"]
    assert execute(words) == 2
    assert "is not in the run that trained it" in capsys.readouterr().err
    assert execute(["eval", str(trained.run), "--checkpoints"]) == 2
    assert "makes no vectors to be evaluated" in capsys.readouterr().err


def test_trained_texts_alone_cannot_be_evaluated(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = tmp_path / "texts.txt"
    stored, _ = stored_texts(trained.run / "model", read_facts(trained.run / "model"))
    texts.write_text("\n\n".join(f"{text.upper()}!" for text in stored[:50]) + "\n")
    assert run(trained, "--evaluate", str(texts)) == 2
    assert "0 of 50 texts are new to the decoder (50 trained on or not known" in capsys.readouterr().err


def test_ctrl_c_keeps_finished_rows(
    trained: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invert, "BLOCK", 2)
    calls: list[int] = []
    best = invert.Inverter.best

    def stopped(self: Any, *arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return best(self, *arguments, **named)

    monkeypatch.setattr(invert.Inverter, "best", stopped)
    options = [word for text in TEXTS[:5] for word in ("--text", text)]
    assert run(trained, *options, "--n", "1", "--json") == 130
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert [row["given"] for row in found["rows"]] == TEXTS[:2] and found["vectors"] == 5
    assert "after 2 of 5 vectors" in captured.err


def test_long_texts_are_counted_in_a_warning(trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(trained, "--text", "read the file " * 20, "--text", "read the file", "--n", "1") == 0
    assert "1 of 2 texts (50%) are longer than the 19 tokens that the decoder learned" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give exactly one of --vectors, --text and --evaluate"),
        (["--text", "a", "--vectors", "v.npy"], "give exactly one of --vectors, --text and --evaluate"),
        (["--text", "a", "--n", "0"], "--n 0: write at least one text for each vector"),
        (["--text", "a", "--n", "2", "--beams", "3"], "--beams 3: use 0 to --n (2)"),
        (["--text", " "], "--text: a text is empty"),
        (["--text", "a", "--as", "both"], "--as both: use document or query"),
        (["--text", "a", "--as", "document"], "was trained on vectors of the role query, not document"),
        (["--vectors", "none.npy"], "--vectors: there is no file none.npy"),
    ],
)
def test_bad_usage_is_one_line(
    trained: Any, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(trained, *words) == 2
    said = capsys.readouterr().err
    assert message in said and len([line for line in said.splitlines() if line.startswith("error")]) == 1


def test_the_decoder_as_model_and_another_model_are_refused(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["invert", str(trained.run), "--decoder", str(trained.run), "--text", "a"]) == 2
    assert "is a decoder, which makes no vectors" in capsys.readouterr().err
    other = save_tiny(tmp_path, "llama-both")
    assert execute(["invert", str(other), "--decoder", str(trained.run), "--text", "a"]) == 2
    assert "error: --decoder:" in capsys.readouterr().err


def unit(rows: int, width: int = 4) -> np.ndarray:
    drawn = np.random.default_rng(0).standard_normal((rows, width))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


BAD: dict[str, tuple[np.ndarray, str]] = {
    "width": (unit(3, 5), r"has the shape \[3, 5\], the model's vectors are \[N, 4\]"),
    "three axes": (np.zeros((2, 2, 4)), r"has the shape \[2, 2, 4\]"),
    "empty": (np.zeros((0, 4)), "has no vectors"),
    "nan": (np.where(np.arange(3)[:, None] == 1, np.nan, unit(3)), r"row 1 of .* is not finite .* 1 such rows"),
    "infinite": (np.where(np.arange(3)[:, None] > 0, np.inf, unit(3)), r"row 1 of .* is not finite .* 2 such rows"),
    "zero": (np.where(np.arange(3)[:, None] == 2, 0.0, unit(3)), r"row 2 of .* is zero, which has no direction"),
    "length": (unit(3) * [[1], [2.5], [1]], r"row 1 of .* has length 2\.5, not 1 \(1 of 3 do\); give --normalize"),
    "integers": (np.ones((2, 4), dtype=np.int8), "has numbers of type int8"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_vectors_are_one_line_each(name: str, tmp_path: Path) -> None:
    from gemma4vec.errors import InputError

    array, message = BAD[name]
    np.save(tmp_path / "v.npy", array)
    with pytest.raises(InputError, match=rf"^--vectors: .*{message}") as refused:
        read_vectors(tmp_path / "v.npy", 4)
    assert "\n" not in str(refused.value)


def test_pickles_archives_and_damaged_files_are_never_loaded(tmp_path: Path) -> None:
    from gemma4vec.errors import InputError

    class Harm:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "harmed",))

    np.save(tmp_path / "objects.npy", np.array([Harm()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "several.npz", a=unit(2), b=unit(2))
    (tmp_path / "damaged.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr'")
    (tmp_path / "text.npy").write_text("0.1 0.2")
    (tmp_path / "empty.npy").write_bytes(b"")
    for name, message in (
        ("objects.npy", "Python objects"),
        ("several.npz", "several arrays"),
        ("damaged.npy", "no array of numbers"),
        ("text.npy", "Python objects"),
        ("empty.npy", "no array of numbers"),
    ):
        with pytest.raises(InputError, match=message):
            read_vectors(tmp_path / name, 4)
    assert not (tmp_path / "harmed").exists()


def test_good_vectors_of_every_float_and_one_alone(tmp_path: Path) -> None:
    for dtype in (np.float16, np.float32, np.float64):
        np.save(tmp_path / "v.npy", unit(3).astype(dtype))
        found = read_vectors(tmp_path / "v.npy", 4)
        assert found.dtype == np.float32 and np.allclose(found, unit(3), atol=1e-3)
        assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.save(tmp_path / "v.npy", 7 * unit(1)[0])
    assert np.allclose(read_vectors(tmp_path / "v.npy", 4, normalize=True), unit(1), atol=1e-6)
