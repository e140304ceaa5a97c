"""No code that comes with a model is run, and nobody is asked whether it may be."""

import ast
import builtins
import json
import sys
from pathlib import Path

import pytest

from gemma4vec.errors import InputError
from gemma4vec.model.backbone.architectures import read_config
from gemma4vec.model.bases.foreign_code import refuse_foreign_code
from gemma4vec.model.bases.resolve import resolve_base
from gemma4vec.model.tokenize.tokenizer import load_tokenizer

SOURCES = Path(__file__).parents[3] / "src" / "gemma4vec"
CODE = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"
EMPTY = (2).to_bytes(8, "little") + b"{}"  # a safetensors file of no tensor
# `to_sentence_transformers` trusts the module of ours, after `refuse_foreign_code`.
TRUSTED = {"api/model.py", "export/runtimes/run_sentence_transformers.py"}


def make(folder: Path, **files: object) -> Path:
    """A folder of JSON files and one Python file; `weights` names the weights' file."""
    folder.mkdir(exist_ok=True)
    (folder / "foreign.py").write_text(CODE)
    (folder / str(files.pop("weights", "model.safetensors"))).write_bytes(EMPTY)
    for name, value in files.items():
        file = folder / f"{name.replace('__', '/')}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(value))
    return folder


@pytest.fixture(autouse=True)
def nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(question: str = "") -> str:
        raise AssertionError(f"asked on stdin: {question}")

    monkeypatch.setattr(builtins, "input", asked)


def test_a_config_that_needs_its_own_code_is_refused(tmp_path: Path) -> None:
    config = {"model_type": "foreign", "auto_map": {"AutoConfig": "foreign.Config", "AutoModel": "foreign.Model"}}
    folder = make(tmp_path / "base", config=config)
    with pytest.raises(InputError, match=r"base/config\.json needs Python code .* \(auto_map\), which is never run"):
        read_config(folder)
    assert not (folder / "ran").exists() and "foreign" not in sys.modules


def test_a_tokenizer_that_needs_its_own_code_is_refused(tmp_path: Path) -> None:
    settings = {"tokenizer_class": "ForeignTokenizer", "auto_map": {"AutoTokenizer": ["foreign.Tokenizer", None]}}
    folder = make(tmp_path / "base", config={"model_type": "foreign"}, tokenizer_config=settings)
    with pytest.raises(InputError, match=r"model\.base: ") as caught:
        load_tokenizer(folder, append_eos=False)
    assert "\n" not in str(caught.value) and not (folder / "ran").exists()


def test_a_known_model_type_is_opened_without_its_code_in_one_line(tmp_path: Path, log_lines: list[str]) -> None:
    config = {"model_type": "llama", "auto_map": {"AutoConfig": "foreign.Config"}, "hidden_size": 64}
    folder = make(tmp_path / "base", config=config)
    assert resolve_base(str(folder)).path == folder
    found = read_config(folder)
    assert (found.model_type, found.hidden_size) == ("llama", 64)
    assert "auto_map" not in found.to_dict()
    assert [line for line in log_lines if "auto_map" in line] == [
        f"{folder / 'config.json'} names code of its own (auto_map), which is not run: transformers' own classes are "
        "used"
    ]
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    "kind",
    [
        "foreign.Module",
        "os.system",
        "sentence_transformers.util.misc.import_from_string",
        "sentence_transformers.models.Transformer.load.x()",
        "gemma4vec.cli.main.run",
        "",
    ],
)
def test_modules_of_others_are_refused(tmp_path: Path, kind: str) -> None:
    folder = make(tmp_path / "base", modules=[{"idx": 0, "type": kind, "path": ""}])
    with pytest.raises(InputError, match=r"modules\.json names the class .* never run"):
        refuse_foreign_code(folder)


def test_activations_of_others_and_folders_outside_are_refused(tmp_path: Path) -> None:
    dense = {"idx": 0, "type": "sentence_transformers.models.Dense", "path": "2_Dense"}
    folder = make(tmp_path / "base", modules=[dense], **{"2_Dense__config": {"activation_function": "os.system"}})
    with pytest.raises(InputError, match=r"names the activation 'os\.system'"):
        refuse_foreign_code(folder)
    make(folder, **{"2_Dense__config": {"activation_function": "torch.nn.modules.activation.Tanh"}})
    refuse_foreign_code(folder)
    make(folder, modules=[dense | {"path": "../elsewhere"}])
    with pytest.raises(InputError, match=r"names the folder '\.\./elsewhere' outside its own"):
        refuse_foreign_code(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "a.pt", "a.ckpt", "a.pkl"])
def test_pickled_weights_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path / "base", config={"model_type": "llama"}, weights=name)
    with pytest.raises(InputError, match=rf"{name} holds weights as a Python pickle, .* safetensors"):
        resolve_base(str(folder))
    make(folder)  # with safetensors beside it, the pickle is never read
    assert resolve_base(str(folder)).path == folder


def test_pickled_weights_of_a_module_are_refused(tmp_path: Path) -> None:
    dense = {"idx": 0, "type": "sentence_transformers.models.Dense", "path": "2_Dense"}
    folder = make(tmp_path / "base", modules=[dense])
    make(folder / "2_Dense", weights="pytorch_model.bin")
    with pytest.raises(InputError, match=r"2_Dense/pytorch_model\.bin holds weights as a Python pickle"):
        refuse_foreign_code(folder)


def calls() -> list[tuple[str, str, dict[str, object]]]:
    """(file, function's last name, constant keywords) of every call in the package."""
    found = []
    for file in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                keywords = {
                    one.arg: one.value.value for one in node.keywords if one.arg and isinstance(one.value, ast.Constant)
                }
                found.append((str(file.relative_to(SOURCES)), name, keywords))
    return found


def test_every_opening_says_that_code_is_not_trusted() -> None:
    openings = [
        (file, name, keywords)
        for file, name, keywords in calls()
        if name.endswith("from_pretrained") or name.rpartition(".")[2] in ("SentenceTransformer", "CrossEncoder")
    ]
    assert len(openings) >= 7
    wrong = [
        (f, n) for f, n, keywords in openings if keywords.get("trust_remote_code") is not False and f not in TRUSTED
    ]
    assert wrong == []


def test_no_pickle_is_read() -> None:
    """But for what child processes of ours write into a pipe."""
    wanted = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
    wrong = [(f, n) for f, n, keywords in calls() if n in wanted and keywords.get(wanted[n][0]) is not wanted[n][1]]
    assert wrong == []
    pipes = {"data/pycode/worker.py", "data/pycode/sampled_beside.py"}
    assert {f for f, n, _ in calls() if n in ("pickle.load", "pickle.loads")} == pipes
