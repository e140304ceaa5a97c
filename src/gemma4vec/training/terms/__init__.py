"""Terms of the loss by kind. A new one is one file in this folder and one line below."""

from gemma4vec.training.terms.base import LossTerm, TermBatch, TermContext, Vectors
from gemma4vec.training.terms.gor import Gor
from gemma4vec.training.terms.kl import Kl
from gemma4vec.training.terms.margin_mse import MarginMse
from gemma4vec.training.terms.matching import Matching
from gemma4vec.training.terms.nce import Nce
from gemma4vec.training.terms.reconstruct import Reconstruct
from gemma4vec.training.terms.self_contrast import SelfContrast
from gemma4vec.training.terms.triplet import Triplet

__all__ = ["TERMS", "LossTerm", "TermBatch", "TermContext", "Vectors"]

TERMS: dict[str, type[LossTerm]] = {
    term.kind: term for term in (Nce, Gor, SelfContrast, Matching, Kl, MarginMse, Triplet, Reconstruct)
}
