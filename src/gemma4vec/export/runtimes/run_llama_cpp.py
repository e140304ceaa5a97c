"""A GGUF file in llama.cpp's own server, from the wheel xllamacpp, on the loopback interface of this process."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from gemma4vec.export.runtimes.job import RoleText, Vectors
from gemma4vec.export.runtimes.openai_client import OpenAiClient
from gemma4vec.model.bases.gguf_file import GgufFile
from gemma4vec.text.prompts import Prompts

_SLOTS = 4
_STEP = 256  # llama.cpp rounds contexts up to it


class LlamaCpp:
    """Runs a GGUF file; its prompts are those that the file holds.

    Args:
        file: the GGUF file.
        max_tokens: the model's limit. Contexts are longer by a few tokens, so that a text over the limit is read.
        threads: of the computation.

    Attributes:
        address: URL of the server.
    """

    def __init__(self, file: Path, max_tokens: int, threads: int):
        import xllamacpp

        metadata = GgufFile(file).metadata
        prompts = Prompts(metadata.get("gemma4vec.prompt.query", ""), metadata.get("gemma4vec.prompt.document", ""))
        context = -(-(max_tokens + 8) // _STEP) * _STEP
        settings = xllamacpp.CommonParams()
        settings.model.path = str(file)
        settings.embedding = True
        settings.n_ctx = context * _SLOTS
        settings.n_parallel = _SLOTS
        settings.n_batch = settings.n_ubatch = context
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
        settings.n_gpu_layers = 0
        settings.warmup = False
        settings.ui = False
        settings.verbosity = 1
        self._server = xllamacpp.Server(settings)
        self.address: str = self._server.listening_address
        self._client = OpenAiClient(self.address, prompts, model=file.stem)

    @property
    def version(self) -> str:
        """Version of the wheel."""
        return f"llama.cpp (xllamacpp {version('xllamacpp')})"

    def encode(self, texts: Sequence[RoleText]) -> Vectors:
        """Vectors `[N, D]`; see `OpenAiClient`."""
        return self._client.encode(texts)

    def tokens(self, text: RoleText) -> list[int] | None:
        """Token ids, as llama.cpp reads a text for an embedding."""
        return self._client.tokens(text)
