"""Where the torchruns of several machines meet: torch's own rendezvous, closed to processes that a signal has stopped.

torchrun counts exit code 75 as a failure, and starts its processes again `--max-restarts` times. Before each start all
machines meet, and a handler of that meeting is what torch lets others write (`rendezvous_handler_registry`).
"""

import os
from dataclasses import dataclass

from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    rendezvous_handler_registry,
)

from gemma4vec.errors import Interrupted
from gemma4vec.training.processes.stop_signals import STOPPING_VARIABLE

BACKEND, TORCHS = "gemma4vec", "c10d"


def register() -> None:
    """Let torchrun know the backend `BACKEND`."""
    rendezvous_handler_registry.register(BACKEND, make_handler)


def make_handler(parameters: RendezvousParameters) -> RendezvousHandler:
    """Make torch's handler for these parameters, and put ours around it."""
    parameters.backend = TORCHS
    return UnlessStopped(rendezvous_handler_registry.create_handler(parameters))


@dataclass
class UnlessStopped(RendezvousHandler):
    """A handler that meets nobody after a signal; everything else is the handler's own."""

    handler: RendezvousHandler

    def next_rendezvous(self) -> RendezvousInfo:
        """Meet the other machines before processes start, for the first time or again.

        Raises:
            Interrupted: a signal has stopped the training; another start may outlast a scheduler's warning.
        """
        if os.environ.get(STOPPING_VARIABLE):
            raise Interrupted("torchrun was asked to stop", agreed=True)
        return self.handler.next_rendezvous()

    def get_backend(self) -> str:
        """The handler's own."""
        return self.handler.get_backend()

    @property
    def use_agent_store(self) -> bool:
        """The handler's own."""
        return self.handler.use_agent_store

    def is_closed(self) -> bool:
        """The handler's own."""
        return self.handler.is_closed()

    def set_closed(self) -> None:
        """The handler's own."""
        self.handler.set_closed()

    def num_nodes_waiting(self) -> int:
        """The handler's own."""
        return self.handler.num_nodes_waiting()

    def get_run_id(self) -> str:
        """The handler's own."""
        return self.handler.get_run_id()

    def shutdown(self) -> bool:
        """The handler's own."""
        return self.handler.shutdown()
