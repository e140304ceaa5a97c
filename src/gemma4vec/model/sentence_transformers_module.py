"""The path that saved models name in modules.json: it stays importable for ever."""

from gemma4vec.model.save.encoder_module import *  # noqa: F403
