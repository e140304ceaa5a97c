"""What has no mean is refused in one line, before anything is written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_family import make_base, make_run
from tiny_saved import OWN_KINDS

from gemma4vec.errors import InputError
from gemma4vec.files import home, write_json
from gemma4vec.ledger.recording import record_run
from gemma4vec.ledger.run_folder import RunFolder
from gemma4vec.model.readout import READOUTS, BaseInfo
from gemma4vec.model.save.read_model import SETTINGS_FILE, read_settings
from gemma4vec.pipeline.soup.ingredients import RANDOM_READOUTS, find_ingredients
from gemma4vec.pipeline.soup.make_soup import make_soup
from gemma4vec.recipe.schema import Model


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A start with a head and two runs from it; two runs from the base."""
    folder = tmp_path_factory.mktemp("family")
    base = make_base(folder)
    start = make_run(folder / "s", base, 1, head={"widths": [6]})
    for seed in (2, 3):
        make_run(folder / str(seed), base, seed, start=start.model, head={"widths": [6]})
    for seed in (4, 5):
        make_run(folder / str(seed), base, seed)
    return folder


def run(family: Path, name: object) -> Path:
    return next(path for path in (family / str(name)).iterdir() if not path.name.startswith("."))


@pytest.fixture
def pair(family: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Copies of two runs from one start, to be damaged."""
    copies = [Path(shutil.copytree(run(family, seed), tmp_path / f"run{seed}")) for seed in (2, 3)]
    return copies[0], copies[1]


def refused(*specs: Path | str) -> str:
    with pytest.raises(InputError) as error:
        find_ingredients([str(spec) for spec in specs])
    assert "\n" not in str(error.value)
    return str(error.value)


def test_settings_that_are_no_recipe_are_one_line(pair: tuple[Path, Path]) -> None:
    file = pair[0] / "model" / "gemma4vec.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"model": settings["model"] | {"max_tokens": "None"}}))
    words = refused(*pair)
    assert "gemma4vec.json is damaged (1 validation error for Model max_tokens" in words
    assert words.endswith("export the model again from its run")


def test_runs_from_one_start_are_found_by_folder_id_and_model(family: Path, tmp_path: Path) -> None:
    one, other = run(family, 2), run(family, 3)
    record_run(RunFolder(one))
    copy = Path(shutil.copytree(one / "model", tmp_path / "copied"))
    for spec in (one, one / "model", copy):
        found = find_ingredients([str(spec), str(other)])
        assert [ingredient.name for ingredient in found] == [one.name, other.name]
        assert found[0].manifest["run_id"] == one.name
    home().mkdir(exist_ok=True)
    (home() / one.name).symlink_to(one)
    assert find_ingredients([one.name, str(other)])[0].name == one.name


def test_other_starts_and_unknown_ones(family: Path, tmp_path: Path) -> None:
    foreign = make_run(tmp_path / "f", make_other_base(tmp_path), 7, head={"widths": [6]}).path
    words = refused(run(family, 2), foreign)
    assert "was trained from start (" in words and f"{foreign.name} from base (" in words
    assert "only models from one start have a mean: train them with the same model.start" in words
    lost = Path(shutil.copytree(run(family, 2) / "model", tmp_path / "lost"))
    found = find_ingredients([str(lost), str(run(family, 3))])  # no ledger knows it, but its own settings do
    assert found[0].start["weights"] == found[1].start["weights"] and found[0].run is None
    settings = read_settings(lost)
    del settings["made_from"]
    write_json(lost / SETTINGS_FILE, settings)
    assert "made these weights, so what they were trained from is unknown" in refused(lost, run(family, 3))
    assert "needs at least two ingredients" in refused(run(family, 2))
    assert "name each ingredient once" in refused(run(family, 2), run(family, 2) / "model")
    assert "no run" in refused(tmp_path / "nothing", run(family, 2))
    assert "is not a run folder" in refused(tmp_path, run(family, 2))


def make_other_base(folder: Path) -> Path:
    """A base with other weights of the same shapes."""
    base = make_base(folder / "other")
    file = base / "model.safetensors"
    values = load_file(file)
    save_file({name: value + 1e-3 for name, value in values.items()}, file, {"format": "pt"})
    return base


def test_a_head_of_its_own_is_no_common_start(family: Path, tmp_path: Path) -> None:
    base = family / "base"
    runs = [make_run(tmp_path, base, seed, head={"widths": [6]}).path for seed in (8, 9)]
    words = refused(*runs)
    assert words.startswith("the head of ") and "began with random weights of its own" in words
    assert find_ingredients([str(run(family, 4)), str(run(family, 5))])  # without one, the base is the start


def test_a_run_that_is_not_finished(pair: tuple[Path, Path]) -> None:
    RunFolder(pair[0]).update_manifest(status="interrupted")
    assert "is not finished (its status is interrupted)" in refused(*pair)
    assert "is a model of the unfinished run" in refused(pair[0] / "model", pair[1])
    RunFolder(pair[0]).update_manifest(status="finished")
    shutil.rmtree(pair[0] / "model")
    assert "and only a finished run is an ingredient" in refused(*pair)


def edit(key: str, value: object) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        settings = read_settings(model)
        settings["model"][key] = value
        write_json(model / SETTINGS_FILE, settings)

    return change


def edit_config(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    write_json(model / "config.json", config | {"rms_norm_eps": 0.5})


def edit_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").write_text((model / "tokenizer.json").read_text() + " ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (edit("prompts", "retrieval"), "differ in model.prompts: none and retrieval"),
        (edit("max_tokens", 20), "differ in model.max_tokens: 40 and 20"),
        (edit("attention", "causal"), "differ in model.attention: bidirectional and causal"),
        (edit("head", {"widths": [5]}), "differ in model.head: "),
        (edit("readout", {"name": "last_token"}), "differ in model.readout: "),
        (edit_tokenizer, "differ in the tokenizer (tokenizer.json)"),
        (edit_config, "differ in rms_norm_eps in config.json: 1e-06 and 0.5"),
    ],
)
def test_other_settings(pair: tuple[Path, Path], change: Callable[[Path], None], words: str) -> None:
    change(pair[1] / "model")
    assert words in refused(*pair)


def test_other_weights_than_the_runs(pair: tuple[Path, Path]) -> None:
    file = pair[0] / "model" / "2_Dense" / "model.safetensors"
    save_file({name: value + 1 for name, value in load_file(file).items()}, file)
    assert "made these weights" in refused(*pair)


def test_how_a_model_was_trained_may_differ(pair: tuple[Path, Path]) -> None:
    edit("train", "frozen")(pair[1] / "model")
    edit("lora", {"rank": 4})(pair[1] / "model")
    assert len(find_ingredients([str(path) for path in pair])) == 2


def test_folders_that_cannot_be_the_result(pair: tuple[Path, Path], tmp_path: Path) -> None:
    specs = [str(path) for path in pair]
    for out, words in [
        (pair[1] / "model", "is the ingredient"),
        (tmp_path, "exists; choose another folder"),
        (pair[0] / "soup", "is inside the run"),
    ]:
        with pytest.raises(InputError, match=words):
            make_soup(specs, out)
    assert not home().exists() or not any(home().iterdir())


def test_a_weight_that_is_not_finite_leaves_nothing_behind(family: Path, tmp_path: Path) -> None:
    one = Path(shutil.copytree(run(family, 2), tmp_path / "nan"))
    file = one / "model" / "2_Dense" / "model.safetensors"
    values = load_file(file)
    values["linear.weight"][0, 0] = torch.nan
    save_file(values, file)
    from gemma4vec.model.bases.weights import hash_weights

    RunFolder(one).update_manifest(weights=hash_weights(one / "model"))
    with pytest.raises(InputError, match=r"2_Dense/model: linear.weight holds weights that are NaN or infinite"):
        make_soup([str(one), str(run(family, 3))], tmp_path / "out")
    assert not (tmp_path / "out").exists() and not home().exists()


def test_which_readouts_start_from_random_numbers(tmp_path: Path) -> None:
    from tiny_context import write_context

    encoder = str(write_context(tmp_path / "context"))
    base = BaseInfo(16, 3, 1.0, None, 16)
    random = set()
    for name in READOUTS:
        settings = dict(next((c["readout"] for _, c in OWN_KINDS.values() if isinstance(c["readout"], dict)
                              and c["readout"]["name"] == name), {"name": name}))  # fmt: skip
        settings |= {"encoder": encoder} if name == "contextual_token" else {}
        readout = Model.model_validate({"readout": settings}).readout
        values = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            values.append(READOUTS[name](readout, base).trainable())
        if any(not torch.equal(value, values[1][key]) for key, value in values[0].items()):
            random.add(name)
    assert random == RANDOM_READOUTS
