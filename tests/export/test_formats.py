"""What each format holds, refuses, and says; the ONNX graph and the embedder that needs no torch."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_gemma import gemma_like_tokenizer, save_tiny_run
from tiny_saved import save_tiny

from gemma4vec.data.suites.retrieval import load_suite
from gemma4vec.errors import InputError
from gemma4vec.export.formats.gguf_tokenizer import read_gguf_tokenizer
from gemma4vec.export.formats.gguf_weights import check_gguf, window_period
from gemma4vec.export.formats.onnx_embedder import OnnxEmbedder
from gemma4vec.export.formats.onnx_graph import check_onnx
from gemma4vec.export.formats.write_folder import write_onnx
from gemma4vec.export.parity.gate import compare_export
from gemma4vec.export.parity.probes import MIN_TEXTS, make_probes
from gemma4vec.export.parity.reference import Reference
from gemma4vec.export.runtimes.job import Answer, answer
from gemma4vec.export.runtimes.run_onnx import OnnxRuntime
from gemma4vec.export.source import Source, open_source
from gemma4vec.model.bases.gguf_model import gguf_name, hugging_face_name
from gemma4vec.recipe.schema import Model
from gemma4vec.text.prompts import Document


def model(**changes: Any) -> Model:
    return Model.model_validate({"base": "x", "attention": "bidirectional", "readout": "mean"} | changes)


CONFIG = {
    "model_type": "gemma3_text",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "layer_types": ["sliding_attention", "full_attention"],
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    },
}


@pytest.mark.parametrize(
    ("changed", "config", "dimension", "whole", "named"),
    [
        ({"readout": "echo_delta"}, {}, 32, 32, "readout echo_delta"),
        ({"readout": "layer_mix"}, {}, 32, 32, "readout layer_mix"),
        ({"readout": {"name": "mean", "pool_prompt": False}}, {}, 32, 32, "readout without the prompt"),
        ({"head": {"widths": [8], "bias": True}}, {}, 8, 8, "a head with bias"),
        ({"head": {"widths": [64]}}, {}, 64, 64, "a head of 64 dimensions"),
        ({"attention": "causal", "head": {"widths": [8]}}, {}, 8, 8, "a head on a causal model"),
        ({"attention": "causal"}, {}, 16, 32, "--dimension 16 of a causal model"),
        ({}, {"model_type": "llama"}, 32, 32, "model type llama"),
        ({}, {"query_pre_attn_scalar": 16}, 32, 32, "an attention scale"),
        ({}, {"num_hidden_layers": 62}, 32, 32, "62 layers"),
        ({}, {"layer_types": ["full_attention", "sliding_attention"]}, 32, 32, "the order of sliding and full layers"),
    ],
)
def test_what_gguf_cannot_hold_is_refused_by_name(
    changed: dict[str, Any], config: dict[str, Any], dimension: int, whole: int, named: str
) -> None:
    check_gguf(model(), CONFIG, 32, 32)
    with pytest.raises(InputError, match="gguf cannot hold") as caught:
        check_gguf(model(**changed), CONFIG | config, dimension, whole)
    assert named in str(caught.value)


def test_scaled_rotary_embeddings_are_refused_by_name() -> None:
    scaled = {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}}
    config = CONFIG | {"rope_parameters": CONFIG["rope_parameters"] | scaled}  # type: ignore[operator]
    with pytest.raises(InputError, match="gguf cannot hold scaled rotary embeddings"):
        check_gguf(model(), config, 32, 32)


def test_the_period_of_full_layers() -> None:
    kinds = {"s": "sliding_attention", "f": "full_attention"}
    for order, period in (("sssssfsssssf", 6), ("sfsf", 2), ("ssss", 0), ("fff", 1), ("sssssfss", 6), ("sf", 2)):
        assert window_period({"layer_types": [kinds[one] for one in order]}) == period


@pytest.mark.parametrize("readout", ["attention", "latent_attention", "layer_mix", "echo_delta", "contextual_token"])
def test_what_onnx_cannot_hold_is_refused_by_name(readout: str) -> None:
    with pytest.raises(InputError, match=f"onnx cannot hold readout {readout}"):
        check_onnx(model(readout=readout))
    with pytest.raises(InputError, match="readout without the prompt"):
        check_onnx(model(readout={"name": "weighted_mean", "pool_prompt": False}))


def test_names_in_a_gguf_file_are_those_that_are_read() -> None:
    names = ["token_embd.weight", "output_norm.weight", "blk.3.attn_q.weight", "blk.11.post_ffw_norm.weight"]
    for name in names:
        ours = hugging_face_name(name, "gemma3")
        assert gguf_name(ours, "gemma3") == gguf_name(ours.removeprefix("model."), "gemma3") == name
    with pytest.raises(InputError, match="has no place in a GGUF file"):
        gguf_name("layers.0.mlp.router.weight", "gemma3")


def test_the_tokenizers_columns(causal: Path, both: Path, tmp_path: Path) -> None:
    vocabulary = gemma_like_tokenizer().get_vocab()
    found = read_gguf_tokenizer(causal / "model", 648)
    assert found.tokens[:4] == ["<pad>", "<eos>", "<bos>", "<unk>"] and len(found.tokens) == len(found.scores) == 648
    assert found.kinds[:6] == [3, 3, 3, 2, 3, 6] and found.kinds[-1] == 5
    assert found.special == {"bos": 2, "eos": 1, "unknown": 3, "padding": 0}
    assert found.add_bos and found.add_eos and not read_gguf_tokenizer(both / "model", 648).add_eos
    merges = json.loads((causal / "model" / "tokenizer.json").read_text())["model"]["merges"]
    assert found.scores[vocabulary["".join(merges[0])]] == 0.0
    last = "".join(merges[-1])
    assert found.scores[vocabulary[last]] == -min(n for n, pair in enumerate(merges) if "".join(pair) == last)
    with pytest.raises(InputError, match="more tokens than the 300 rows"):
        read_gguf_tokenizer(causal / "model", 300)
    with pytest.raises(InputError, match="only Gemma's tokenizer"):
        read_gguf_tokenizer(save_tiny(tmp_path, "both-mean"), 400)


def test_the_probes_have_every_length_around_the_limit(sources: dict[str, Source], suite: Path) -> None:
    reference = Reference(sources["causal"].embedder, 32)
    given = load_suite(suite)
    probes = make_probes(given.queries, [text for text, _ in given.corpus], reference.count, reference.limit)
    assert len(probes) >= MIN_TEXTS and len({probe.text for probe in probes}) == len(probes)
    lengths = {(probe.text.role, probe.why): reference.count(probe.text) for probe in probes}
    for role in ("query", "document"):
        for offset, why in ((-1, "limit-1"), (0, "limit"), (1, "limit+1")):
            assert lengths[role, why] == reference.limit + offset
    assert all(probe.over == (reference.count(probe.text) > reference.limit) for probe in probes)
    assert sum(probe.why == "suite" for probe in probes) > 30


@pytest.fixture(scope="module")
def onnx_folder(sources: dict[str, Source], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    write_onnx(sources["both"], folder, 16)
    return folder


def test_the_onnx_graph_has_one_output_and_passes_the_gate(
    sources: dict[str, Source], onnx_folder: Path, suite: Path
) -> None:
    import onnx

    graph = onnx.load(str(onnx_folder / "model.onnx"), load_external_data=False).graph
    assert [one.name for one in graph.output] == ["sentence_embedding"]
    assert [[size.dim_param for size in one.type.tensor_type.shape.dim] for one in graph.input] == [
        ["batch", "length"]
    ] * 2

    def compared() -> Any:
        runtime = OnnxRuntime(onnx_folder, 1)

        def ask(texts: Any, calls: Any, tokens_of: Any) -> Answer:
            return answer(runtime, [[texts[i] for i in call] for call in calls], [texts[i] for i in tokens_of])

        return compare_export(sources["both"], load_suite(suite), ask, dtype="f32", dimension=16)

    report = compared()
    assert report.problems == [] and report.over_limit == "truncates" and (report.dimension, report.width) == (16, 16)
    file = onnx_folder / "gemma4vec_onnx.json"
    before = file.read_text()
    file.write_text(json.dumps(json.loads(before) | {"prompts": {"query": "", "document": ""}}))
    assert compared().cause.startswith("the prompt is left out")
    file.write_text(before)


def test_padding_on_either_side_gives_the_same_vectors(onnx_folder: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx_folder / "model.onnx"), providers=["CPUExecutionProvider"])
    ids, mask = np.array([[2, 270, 280, 290, 0, 0]]), np.array([[1, 1, 1, 1, 0, 0]])
    (right,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
    (left,) = session.run(None, {"input_ids": np.roll(ids, 2, 1), "attention_mask": np.roll(mask, 2, 1)})
    np.testing.assert_allclose(left, right, atol=1e-6)


def test_the_onnx_embedder_is_ours_without_torch(sources: dict[str, Source], onnx_folder: Path, tmp_path: Path) -> None:
    ours = sources["both"].embedder
    documents = [Document("sort the tree", "graphs"), "read a file \ud800", ""]
    expected = ours.encode_document(documents)[:, :16]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    model = OnnxEmbedder(onnx_folder, batch=2)
    np.testing.assert_allclose(model.encode_document(documents), expected, atol=1e-5)
    assert model.encode_query([]).shape == (0, 16) and model.describe()["dimension"] == 16
    code = (
        "import sys, gemma4vec as g4v\n"
        "print(g4v.OnnxEmbedder(sys.argv[1]).encode_query(['a', 'b c']).shape, 'torch' in sys.modules, "
        "'transformers' in sys.modules)"
    )
    source = str(Path(__file__).resolve().parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", code, str(onnx_folder)],
        env=os.environ | {"PYTHONPATH": source},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split("\n")[0] == "(2, 16) False False", done.stderr
    with pytest.raises(InputError, match="is no export of gemma4vec to ONNX"):
        OnnxEmbedder(tmp_path)


def test_a_length_that_was_not_trained_and_a_run_that_is_not_finished(both: Path, tmp_path: Path) -> None:
    assert open_source(str(both)).check_dimension(16) == 16
    with pytest.raises(InputError, match=r"--dimension 8: tiny was not trained for it; it has 16, 24"):
        open_source(str(both)).check_dimension(8)
    (tmp_path / "manifest.json").write_text('{"run_id": "x"}')
    with pytest.raises(InputError, match="is not finished"):
        open_source(str(tmp_path))


def test_an_older_folder_without_lengths_takes_them_from_the_runs_recipe(tmp_path: Path) -> None:
    run = save_tiny_run(tmp_path, (8,), attention="bidirectional", readout={"name": "mean"})
    file = run / "model" / "config.json"
    config = json.loads(file.read_text())
    assert config.pop("matryoshka_dimensions") == [8, 32] and config.pop("is_matryoshka")
    file.write_text(json.dumps(config))
    assert open_source(str(run)).lengths == ()
    recipe = {
        "name": "tiny",
        "model": {"base": "x"},
        "stages": [
            {
                "data": [{"name": "a", "path": "a.jsonl"}],
                "budget": {"steps": 1},
                "task": {"kind": "contrast", "terms": [{"kind": "nce", "matryoshka": [8]}]},
            }
        ],
    }
    (run / "recipe.yaml").write_text(json.dumps(recipe))
    assert open_source(str(run)).lengths == (8, 32)
