"""A disk that is too small for a run's files is found before the first step."""

from types import SimpleNamespace

import torch
from torch import nn

from gemma4vec.training.run import Trainer


def test_two_checkpoints_and_the_model_are_counted() -> None:
    encoder = nn.Linear(100, 10, bias=False, dtype=torch.bfloat16)
    trained = nn.Linear(10, 5, bias=False)
    encoder.head = trained
    built = SimpleNamespace(encoder=encoder, trainable=lambda: dict(trained.named_parameters()))
    trainer = SimpleNamespace(built=built, dtype=torch.bfloat16)
    # fp32 weights and AdamW's two moments, twice; then 1,050 weights in bf16.
    assert Trainer._bytes_to_write(trainer) == 2 * 3 * 4 * 50 + 2 * 1_050  # type: ignore[arg-type]
