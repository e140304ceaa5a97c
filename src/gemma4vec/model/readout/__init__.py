"""Readouts by name. A new one is one file beside this and one line below."""

from gemma4vec.model.readout.base import Readout
from gemma4vec.model.readout.last_token import LastToken
from gemma4vec.model.readout.mean import Mean

READOUTS: dict[str, type[Readout]] = {readout.name: readout for readout in (Mean, LastToken)}
