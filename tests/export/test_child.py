"""The process that runs an export does not outlive the one that asked it."""

import os
import subprocess
import sys

WAITING = """
import sys, time
from gemma4vec.export.runtimes.child import end_with_parent
end_with_parent(sys.stdin.fileno())
print("waiting", flush=True)
time.sleep(600)
"""


def test_a_child_ends_when_its_parent_has_ended() -> None:
    end, ours = os.pipe()
    with subprocess.Popen([sys.executable, "-c", WAITING], stdin=end, stdout=subprocess.PIPE, text=True) as child:
        os.close(end)
        assert child.stdout is not None and child.stdout.readline() == "waiting\n"
        assert child.poll() is None
        os.close(ours)  # as the kernel does for a process that is killed
        assert child.wait() == 1
