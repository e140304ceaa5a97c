"""The module path that saved models name in modules.json. It stays importable for ever."""

from gemma4vec.model.save.encoder_module import Gemma4VecEncoder

__all__ = ["Gemma4VecEncoder"]
