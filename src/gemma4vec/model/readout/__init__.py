"""Readouts by name. A new one is a file in this folder and a line below (see model/README.md)."""

from gemma4vec.model.readout.attention_pooling import Attention
from gemma4vec.model.readout.base import BaseInfo, Readout
from gemma4vec.model.readout.contextual_token import ContextualToken
from gemma4vec.model.readout.echo_delta import EchoDelta
from gemma4vec.model.readout.first_token import FirstToken
from gemma4vec.model.readout.last_token import LastToken
from gemma4vec.model.readout.latent_attention import LatentAttention
from gemma4vec.model.readout.layer_mix import LayerMix
from gemma4vec.model.readout.mean import Mean
from gemma4vec.model.readout.weighted_mean import WeightedMean

__all__ = ["READOUTS", "BaseInfo", "Readout"]

READOUTS: dict[str, type[Readout]] = {
    readout.name: readout
    for readout in (
        LastToken,
        FirstToken,
        Mean,
        WeightedMean,
        Attention,
        LatentAttention,
        ContextualToken,
        LayerMix,
        EchoDelta,
    )
}
