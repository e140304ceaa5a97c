"""Files of a split: told by whole words of their names, never by the first letters."""

from pathlib import PurePosixPath

import pytest

from gemma4vec.data.sources.splits import files_of_split
from gemma4vec.errors import InputError


def chosen(names: list[str], split: str = "train") -> list[str]:
    return [str(file) for file in files_of_split("w", [PurePosixPath(name) for name in names], split)]


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        (["squad_dev.jsonl", "squad_test.jsonl", "squad_train.jsonl"], "train", ["squad_train.jsonl"]),
        (["squad-dev.jsonl", "squad-train.jsonl"], "validation", ["squad-dev.jsonl"]),
        (["SquadTest.csv", "SquadTrain.csv"], "train", ["SquadTrain.csv"]),
        (["testset.csv", "traindata.csv"], "train", ["traindata.csv"]),
        (["test1.jsonl", "train1.jsonl", "train2.jsonl"], "train", ["train1.jsonl", "train2.jsonl"]),
        (["train-0.parquet", "val-0.parquet"], "dev", ["val-0.parquet"]),
        (["test/train.jsonl", "train/test.jsonl"], "train", ["test/train.jsonl"]),
        (["en/test/a.jsonl", "en/train/a.jsonl"], "test", ["en/test/a.jsonl"]),
        (["test_sft-0.parquet", "train_gen-0.parquet", "train_sft-0.parquet"], "train_sft", ["train_sft-0.parquet"]),
        (["fr-0.parquet", "frankfurt.parquet"], "fr", ["fr-0.parquet"]),
        (["extra.jsonl", "train.jsonl"], "train", ["train.jsonl"]),
        (["testimonials.jsonl"], "train", ["testimonials.jsonl"]),
        (
            ["contest.jsonl", "latest.jsonl", "validated.jsonl"],
            "train",
            ["contest.jsonl", "latest.jsonl", "validated.jsonl"],
        ),
        (["trainers.jsonl", "device.jsonl"], "train", ["trainers.jsonl", "device.jsonl"]),
    ],
)
def test_words_of_a_name_tell_the_split(names: list[str], split: str, expected: list[str]) -> None:
    assert chosen(names, split) == expected


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        (["squad_test.jsonl"], "train", "no file is named after the split 'train'; there are files of test"),
        (["dev/a.jsonl", "testing/b.jsonl"], "train", "there are files of validation, test"),
        (["testimonials.jsonl"], "test", "no file is named after any"),
        (["fr.jsonl"], "de", "no file is named after the split 'de'; no file is named after any"),
        (["train_test.jsonl"], "train", r"the name of train_test\.jsonl has the splits train and test; rename it"),
        (["a.jsonl"], "?", "no file is named after the split '\\?'"),
    ],
)
def test_what_cannot_be_told_is_refused(names: list[str], split: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        chosen(names, split)
