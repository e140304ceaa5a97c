"""A tokenizer that marks texts as Gemma's does."""

from transformers import GemmaTokenizer

BOS = 2  # its place among `words`


def gemma_tokenizer(says_so: bool) -> GemmaTokenizer:
    """Gemma's own class with single characters as its words; a base may say in its config that it adds BOS."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    words += [chr(code) for code in range(33, 127)]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    tokenizer = GemmaTokenizer(vocab=vocabulary, merges=[], **({"add_bos_token": True} if says_so else {}))
    if not says_so:
        from tokenizers.processors import TemplateProcessing

        tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<bos> $A", special_tokens=[("<bos>", BOS)])
    return tokenizer
