"""Peak memory of this process."""

import resource

import torch


def peak_memory_bytes() -> int:
    """Largest memory so far: of the GPU where one is used, else resident memory of the process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
