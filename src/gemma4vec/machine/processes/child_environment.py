"""The environment of a child that runs this package's code in a Python of its own."""

import os
import sys


def child_environment() -> dict[str, str]:
    """This process's environment, in which a child imports from where this process does and from nowhere else.

    `python -m` would look into the working folder first, where a person's file may have the name of any module.
    """
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONSAFEPATH": "1"}
