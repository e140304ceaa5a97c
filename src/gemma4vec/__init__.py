"""gemma4vec: turn a decoder language model into a text-embedding model, honestly."""

__version__ = "0.2.0"
