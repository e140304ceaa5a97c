"""Reachability of the model hub, with a hard time limit: a blocked network drops packets without an error."""

import os
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass

_DEFAULT_ENDPOINT = "https://huggingface.co"


@dataclass(frozen=True)
class HubState:
    """Whether the hub is reachable, and the reason in words."""

    reachable: bool
    reason: str


def hub_endpoint() -> str:
    """Address of the model hub: `$HF_ENDPOINT`, by default Hugging Face's."""
    return (os.environ.get("HF_ENDPOINT") or _DEFAULT_ENDPOINT).rstrip("/")


def is_offline_by_choice() -> bool:
    """Whether the person forbade the hub with HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE."""
    chosen = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return chosen.upper() in {"1", "ON", "YES", "TRUE"}


def ping_hub(timeout_s: float) -> HubState:
    """Whether the hub answers within `timeout_s` seconds, name lookup included; never takes longer."""
    if is_offline_by_choice():
        return HubState(False, "HF_HUB_OFFLINE forbids it")
    answer: list[HubState] = []
    # A thread, because no time limit of a socket covers the name lookup.
    asking = threading.Thread(target=lambda: answer.append(_ask(timeout_s)), daemon=True)
    asking.start()
    asking.join(timeout_s)
    return answer[0] if answer else HubState(False, f"no answer from {hub_endpoint()} within {timeout_s:g} s")


def _ask(timeout_s: float) -> HubState:
    request = urllib.request.Request(hub_endpoint(), method="HEAD", headers={"User-Agent": "gemma4vec"})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s):
            return HubState(True, f"{hub_endpoint()} answers")
    except urllib.error.HTTPError as error:
        return HubState(True, f"{hub_endpoint()} answers (status {error.code})")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return HubState(False, f"{hub_endpoint()} cannot be reached ({reason})")
