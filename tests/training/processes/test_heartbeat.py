"""Processes that are gone are noticed, suspended ones are not; an attempt has a part of the store for itself."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch.distributed as dist

from gemma4vec.errors import InputError, WorkError
from gemma4vec.training.processes.heartbeat import PATIENCE_VARIABLE, Heartbeat, patience_seconds
from gemma4vec.training.processes.meeting import meet


class Silent:
    """A store that answers nothing any more, like one on a machine without power."""

    def __init__(self, store: dist.Store):
        self.store, self.gone = store, threading.Event()

    def __getattr__(self, name: str) -> object:
        if self.gone.is_set():
            time.sleep(30)
        return getattr(self.store, name)


def hearts(size: int, patience: float, ended: list[tuple[int, str]], stores: list[object]) -> list[Heartbeat]:
    found = [
        Heartbeat(stores[n], n, size, patience, end=lambda why, n=n: ended.append((n, why)))  # type: ignore[arg-type,misc]
        for n in range(size)
    ]
    for heart in found:
        heart.start()
    return found


def wait_for(ended: list[tuple[int, str]], number: int) -> None:
    last = time.monotonic() + 10
    while len(ended) < number and time.monotonic() < last:
        time.sleep(0.02)


def test_all_others_end_when_one_stops_beating() -> None:
    ended: list[tuple[int, str]] = []
    store = dist.HashStore()
    found = hearts(4, 0.5, ended, [store] * 4)
    time.sleep(1.0)
    assert ended == []
    found[2].stop()
    began = time.monotonic()
    wait_for(ended, 3)
    assert sorted(rank for rank, _ in ended) == [0, 1, 3] and time.monotonic() - began < 3
    assert all(why.startswith("process 2 on ") and "no sign of life" in why for _, why in ended)
    for heart in found:
        heart.stop()


def test_a_store_that_does_not_answer_ends_a_process() -> None:
    ended: list[tuple[int, str]] = []
    store = Silent(dist.HashStore())
    found = hearts(2, 0.4, ended, [store, store.store])
    time.sleep(0.3)
    store.gone.set()
    wait_for(ended, 2)
    assert dict(ended)[0].startswith("the machine of the first process gave no sign of life")
    assert dict(ended)[1].startswith("process 0 on ")
    found[1].stop()


def test_heartbeats_that_have_stopped_end_nobody() -> None:
    ended: list[tuple[int, str]] = []
    for heart in hearts(2, 0.3, ended, [dist.HashStore()] * 2):
        heart.stop()
    time.sleep(0.6)
    assert ended == []


@pytest.mark.parametrize("text", ["0", "x", "nan", "inf", "3601", "9" * 30])
def test_patience_is_a_number_of_seconds(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert patience_seconds() == 90
    monkeypatch.setenv(PATIENCE_VARIABLE, "2.5")
    assert patience_seconds() == 2.5
    monkeypatch.setenv(PATIENCE_VARIABLE, text)
    with pytest.raises(InputError, match=PATIENCE_VARIABLE):
        patience_seconds()


def test_each_attempt_has_a_name_of_its_own() -> None:
    store = dist.HashStore()
    names: list[set[str]] = []
    for _ in range(3):  # greetings of earlier attempts are still in the store
        with ThreadPoolExecutor(3) as pool:
            names.append(set(pool.map(lambda rank: meet(store, rank, 3, patience=10), (2, 1, 0))))
    assert all(len(one) == 1 for one in names) and len(set.union(*names)) == 3


def test_a_process_that_does_not_come_is_named() -> None:
    with pytest.raises(WorkError, match="1, 2 did not come within 0 seconds"):
        meet(dist.HashStore(), 0, 3, patience=0.1)
