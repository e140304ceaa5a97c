"""A run folder that machines do not share is refused; a lost process is named in one line."""

from pathlib import Path

import pytest
import torch.distributed as dist

from gemma4vec.errors import InputError, WorkError
from gemma4vec.training.engine import distributed
from gemma4vec.training.engine.distributed import World, name_lost_processes


class Two(World):
    """The second of two processes, whose first one has written to `other`."""

    def __init__(self, other: Path):
        super().__init__()
        self.rank, self.size, self.other = 1, 2, other

    def from_first(self, make: object) -> object:  # type: ignore[override]
        self.other.mkdir(exist_ok=True)
        (self.other / ".shared-abc").write_text("abc")
        return "abc"

    def wait(self) -> None:
        pass

    def gather(self, value: object) -> list[object]:  # type: ignore[override]
        return [(True, "first-host"), value]


def test_a_folder_must_be_the_same_one_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_SECONDS_TO_APPEAR", 0.1)
    Two(tmp_path / "runs").check_shared(tmp_path / "runs")
    with pytest.raises(InputError, match=r"process 1 on .* does not see what process 0 on first-host writes there"):
        Two(tmp_path / "elsewhere").check_shared(tmp_path / "mine")
    World().check_shared(tmp_path / "alone")
    assert not (tmp_path / "alone").exists()


@pytest.mark.parametrize(
    "said",
    ["[x/pair.cc:547] Connection closed by peer [127.0.0.1]:1", "Read error: Connection reset by peer", "NCCL error"],
)
def test_a_lost_process_is_named(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match=r"peer|NCCL") as alone, name_lost_processes("go on"):
        raise RuntimeError(said)
    assert type(alone.value) is RuntimeError
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    with (
        pytest.raises(WorkError, match=r"another process of this training has ended.*go on with: x"),
        name_lost_processes("x"),
    ):
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="shapes") as other, name_lost_processes("x"):
        raise RuntimeError("shapes cannot be multiplied")
    assert type(other.value) is RuntimeError


@pytest.mark.parametrize(("rank", "local", "turns"), [(0, 0, [0, 2]), (2, 0, [1, 1]), (1, 1, [2, 0]), (3, 1, [2, 0])])
def test_the_first_process_of_each_machine_goes_before_the_rest(rank: int, local: int, turns: list[int]) -> None:
    waits: list[str] = []
    world = World()
    world.rank, world.local_rank, world.size = rank, local, 4
    world.wait = lambda: waits.append("wait")  # type: ignore[method-assign]
    with world.first_before_others():
        waits.append("work")
    assert [waits.index("work"), len(waits) - waits.index("work") - 1] == turns


@pytest.mark.parametrize(("local", "gpus"), [(0, 1), (1, 2)])
def test_a_process_takes_the_gpu_of_its_number_on_this_machine(
    local: int, gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("LOCAL_RANK", str(local))
    assert distributed._own_gpu() == local
    monkeypatch.setenv("LOCAL_RANK", str(gpus))
    with pytest.raises(InputError, match=f"LOCAL_RANK={gpus}, but this machine has {gpus} GPUs"):
        distributed._own_gpu()
