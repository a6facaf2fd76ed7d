"""How ranks find one another and notice that one is gone; the ranks here are threads, each with its own connections."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import torch

from fewlabels.runtime import parallel, ranks
from fewlabels.runtime.device import pick_device
from fewlabels.runtime.ranks import Line, Lost, Place, meet, place

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
GOOD = {
    "RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "h",
    "MASTER_PORT": "9",
}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def put(**values: str | None) -> None:
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in {**GOOD, **values}.items():
            if value is not None:
                monkeypatch.setenv(name, value)

    return put


# ---- the environment


def test_places(environment: Callable[..., None]) -> None:
    environment()
    assert place() == (1, 4, "h", 9) and parallel.environment_rank() == 1
    assert (ranks.local_rank(), ranks.local_world()) == (1, 2)
    environment(LOCAL_WORLD_SIZE=None)
    assert place() == (1, 4, "h", 9) and ranks.local_world() == 2  # as far as is known
    environment(RANK=None, WORLD_SIZE="1", LOCAL_RANK=None, LOCAL_WORLD_SIZE=None)  # what some clusters set for one
    assert place() is None and parallel.environment_rank() == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"RANK": "x"}, "RANK must be a whole number from 0 to 3, got 'x'; torchrun sets it"),
        ({"RANK": ""}, "RANK must be a whole number from 0 to 3, got ''; torchrun sets it"),
        ({"RANK": "-1"}, "RANK must be a whole number from 0 to 3, got '-1'; torchrun sets it"),
        ({"RANK": "4"}, "RANK must be a whole number from 0 to 3, got '4'; torchrun sets it"),
        ({"RANK": "1.0"}, "RANK must be a whole number from 0 to 3, got '1.0'; torchrun sets it"),
        ({"RANK": "١"}, "RANK must be a whole number from 0 to 3, got '١'; torchrun sets it"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE must be a whole number from 1 to 1000000, got '0'; torchrun sets it"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE must be a whole number from 1 to 1000000, got 'two'; torchrun sets it"),
        ({"LOCAL_RANK": "a"}, "LOCAL_RANK must be a whole number from 0 to 1000000, got 'a'; torchrun sets it"),
        (
            {"LOCAL_WORLD_SIZE": "1"},
            "LOCAL_WORLD_SIZE must be a whole number from 2 to 1000000, got '1'; torchrun sets it",
        ),
        (
            {"LOCAL_WORLD_SIZE": "8"},
            "LOCAL_WORLD_SIZE is 8, but WORLD_SIZE is 4; torchrun sets all of them; unset them for a training on one "
            "device",
        ),
        (
            {"LOCAL_RANK": "7", "LOCAL_WORLD_SIZE": None},
            "LOCAL_RANK is 7, but WORLD_SIZE is 4; torchrun sets all of them; unset them for a training on one device",
        ),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT must be a whole number from 1 to 65535, got '70000'; torchrun sets it"),
        (
            {"MASTER_ADDR": None, "WORLD_SIZE": None},
            "RANK is set, but WORLD_SIZE and MASTER_ADDR not; torchrun sets all of them; unset them for a training on "
            "one device",
        ),
        (
            {"MASTER_ADDR": ""},
            "RANK is set, but MASTER_ADDR not; torchrun sets all of them; unset them for a training on one device",
        ),
        (
            {"RANK": None},
            "WORLD_SIZE is 4, but RANK is not set; torchrun sets all of them; unset them for a training on one device",
        ),
        (
            {"RANK": None, "WORLD_SIZE": None},
            "LOCAL_RANK is 1, but RANK is not set; torchrun sets all of them; unset them for a training on one device",
        ),
    ],
)
def test_an_environment_that_is_not_torchruns(
    environment: Callable[..., None], command: Callable[..., Any], values: dict[str, str | None], sentence: str
) -> None:
    environment(**values)
    said = command("train", "--data", "digits@40")
    assert (said.code, said.out, said.sentence) == (2, "", f"the environment variable {sentence}")


def test_a_machine_that_is_not_known(environment: Callable[..., None], command: Callable[..., Any]) -> None:
    environment(MASTER_ADDR="no host of this name")
    said = command("train", "--data", "digits@40")
    start = "the environment variable MASTER_ADDR is 'no host of this name', a machine that is not known: "
    assert said.code == 2 and said.sentence.startswith(start)


# ---- meeting


Met = tuple[Any, Line]


@contextlib.contextmanager
def meeting(*places: Place) -> Iterator[list[Future[Met]]]:
    """Each place meets the others in a thread; connections that were made are closed in the end."""
    with ThreadPoolExecutor(len(places)) as pool:
        futures = [pool.submit(meet, p) for p in places]
        yield futures
    for future in futures:
        if future.exception() is None:
            future.result()[1].close()


def places(world: int, ranks: range | None = None) -> list[Place]:
    port = free_port()
    return [Place(rank, world, "127.0.0.1", port) for rank in ranks or range(world)]


def failure(future: Future[Met]) -> str:
    error = future.exception(30)
    assert isinstance(error, Lost | ValueError)
    return str(error)


def test_ranks_agree_on_the_largest_number() -> None:
    with meeting(*places(3)) as futures, ThreadPoolExecutor(3) as pool:
        lines = [future.result(30)[1] for future in futures]
        for values in ((0, 0, 0), (0, 15, 2), (9, 0, 0)):
            agreed = [pool.submit(line.agree, value) for line, value in zip(lines, values, strict=True)]
            assert [a.result(30) for a in agreed] == [max(values)] * 3


def test_all_hear_which_rank_is_gone() -> None:
    with meeting(*places(3)) as futures, ThreadPoolExecutor(3) as pool:
        lines = [future.result(30)[1] for future in futures]
        waiting = pool.submit(lines[1].agree, 0)
        assert [line.gone(0) for line in (lines[0], lines[2])] == [None, None]  # rank 1 has sent what it should
        lines[2].close()
        assert lines[0].gone(5) == 2
        with pytest.raises(Lost, match=r"^rank 1 stops, since rank 2 has ended, which says why unless it was killed$"):
            waiting.result(30)
        with pytest.raises(Lost, match=r"^rank 0 stops, since rank 2 has ended, "):
            lines[0].agree(0)
        lines[0].close()
        assert lines[1].gone(5) == 2  # what rank 0 told before it ended
        with pytest.raises(Lost, match=r"^rank 1 stops, since rank 2 has ended, "):
            lines[1].agree(0)


def test_without_rank_0() -> None:
    with meeting(*places(2)) as futures:
        lines = [future.result(30)[1] for future in futures]
        lines[0].close()
        assert lines[1].gone(5) == 0
        with pytest.raises(Lost, match=r"^rank 1 stops, since rank 0 has ended, "):
            lines[1].agree(0)


@pytest.mark.slow
@pytest.mark.parametrize("there", [range(2), range(1, 3)])
def test_a_rank_that_never_comes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], there: range
) -> None:
    monkeypatch.setattr(ranks, "QUIET", 1.0)
    monkeypatch.setattr(ranks, "LIMIT", 2.0)
    here = places(3, there)
    missing = ({0, 1, 2} - set(there)).pop()
    where = f"127.0.0.1:{here[0].port} (MASTER_ADDR, MASTER_PORT)"
    with meeting(*here) as futures:
        sentences = {failure(future) for future in futures}
    never = f"rank {missing} of 3 did not come within 2 s to meet at {where}"
    if missing:
        assert sentences == {
            never,
            f"rank 1 stops, since rank {missing} has ended, which says why unless it was killed",
        }
    else:
        assert sentences == {never}
    waiting = [0] if missing else [1, 2]  # those that wait for rank 0 to tell say nothing
    assert sorted(capsys.readouterr().err.splitlines()) == [
        f"fewlabels: rank {rank} waits for rank {missing} of 3 to come, at {where}" for rank in waiting
    ]


def test_ranks_that_contradict_each_other() -> None:
    one, two = places(2)
    with meeting(one, two._replace(world=3)) as futures:
        assert failure(futures[0]) == "the environment variable WORLD_SIZE is 2 for rank 0 and 3 for rank 1"
        assert failure(futures[1]).startswith("rank 1 stops, since rank 0 has ended, ")
    zero, one, _ = places(3)
    with meeting(zero, one, one) as futures:
        assert failure(futures[0]) == "the environment variable RANK is 1 for two processes"
        assert all(failure(future).startswith("rank 1 stops, since rank 0 has ended, ") for future in futures[1:])


def test_a_stranger_is_no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    ports: list[int] = []
    create = socket.create_server

    def watched(*args: Any, **options: Any) -> socket.socket:
        server = create(*args, **options)
        ports.append(server.getsockname()[1])
        return server

    monkeypatch.setattr(socket, "create_server", watched)
    zero, one = places(2)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(meet, zero)
        while not ports:
            threading.Event().wait(0.01)
        for text in (b"GET / HTTP/1.0\r\n\r\n01234567", b""):
            with socket.create_connection(("127.0.0.1", ports[0])) as stranger:
                stranger.sendall(text)
        second = meet(one)[1]
        second.close()
        first.result(30)[1].close()


@pytest.mark.slow
def test_ports_that_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        where = f"127.0.0.1:{port} (MASTER_ADDR, MASTER_PORT)"
        with pytest.raises(ValueError, match="the port is taken, choose another one") as taken:
            meet(Place(0, 2, "127.0.0.1", port))
        assert str(taken.value) == f"rank 0 cannot listen at {where}: the port is taken, choose another one"
        monkeypatch.setattr(ranks, "ANSWER", 0.5)  # nobody answers there
        with pytest.raises(ValueError) as silent:
            meet(Place(1, 2, "127.0.0.1", port))
        assert str(silent.value) == f"what answers is not rank 0 of this training, at {where}"


# ---- what stands on it


def two_parallel(monkeypatch: pytest.MonkeyPatch, met: tuple[Any, Line], rank: int) -> None:
    monkeypatch.setattr(parallel, "_met", parallel._Met(Place(rank, 2, "127.0.0.1", 1), *met))


def test_what_rank_0_could_not_do_the_others_do_not_try(monkeypatch: pytest.MonkeyPatch) -> None:
    with meeting(*places(2)) as futures, ThreadPoolExecutor(1) as pool:
        met = [future.result(30) for future in futures]
        lines = [line for _, line in met]
        other = pool.submit(lines[1].agree, 0)
        two_parallel(monkeypatch, met[0], 0)
        with pytest.raises(ValueError, match="no such data"), parallel.first():
            raise ValueError("no such data")
        assert other.result(30) == 1
        other = pool.submit(lines[0].agree, 1)
        two_parallel(monkeypatch, met[1], 1)
        with pytest.raises(Lost) as lost, parallel.first():
            raise AssertionError("tried")
        assert str(lost.value) == "rank 1 stops, since rank 0 could not get what all ranks need, and says why"


# ---- GPUs


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """A machine with two GPUs, and the devices that are chosen."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


def test_each_rank_has_its_gpu(environment: Callable[..., None], two_gpus: list[torch.device]) -> None:
    environment()
    assert [pick_device(name) for name in ("auto", "cuda")] == two_gpus == [torch.device("cuda", 1)] * 2
    environment(LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")  # one rank on each of several machines
    assert pick_device("cuda:1") == torch.device("cuda", 1) and pick_device("auto") == torch.device("cuda", 0)
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:0", "cuda:1"])
def test_one_gpu_for_all_ranks(environment: Callable[..., None], two_gpus: list[torch.device], name: str) -> None:
    environment()
    with pytest.raises(ValueError) as error:
        pick_device(name)
    assert str(error.value) == f"device {name} would be that of all 2 ranks of this machine: give --device cuda"
    assert not two_gpus


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_more_ranks_than_gpus(environment: Callable[..., None], two_gpus: list[torch.device], name: str) -> None:
    environment(LOCAL_RANK="2", LOCAL_WORLD_SIZE="4")
    with pytest.raises(ValueError) as error:
        pick_device(name)
    assert str(error.value) == (
        "this machine has 4 ranks and 2 CUDA GPUs, and each rank needs its own: start 2 (torchrun --nproc-per-node 2), "
        "or give --device cpu"
    )
    assert not two_gpus


def test_two_ranks_that_see_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each started by hand with the same CUDA_VISIBLE_DEVICES: only the GPU's own number tells."""

    class Properties:
        uuid = "1234-abcd"

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    here = places(2)
    with meeting(*here) as futures, ThreadPoolExecutor(2) as pool:
        met = [future.result(30) for future in futures]
        checks = [
            pool.submit(parallel._check_gpus, store, line, h, torch.device("cuda", 0))
            for (store, line), h in zip(met, here, strict=True)
        ]
        sentences = {str(check.exception(30)) for check in checks}
    assert sentences == {
        "ranks 0 and 1 have the same GPU (1234-abcd): start one rank for each, and give each its own LOCAL_RANK (as "
        "torchrun does) or CUDA_VISIBLE_DEVICES"
    }
