"""How the ranks of a training find one another, wait for one another, and notice that one is gone.

torchrun gives each process its number in the environment. Rank 0 then holds a connection to every other rank, beside
those of torch. Such a wait lasts as long as the others work (torch's ends after 10 or 30 minutes), ends at once when a
rank is gone, whatever killed it, and can be stopped by Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import select
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TypeVar

import torch.distributed as dist

from fewlabels.runtime.words import first

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

T = TypeVar("T")

LIMIT = 600.0
"""Seconds in which all ranks must have come."""

QUIET = 5.0
"""Seconds of waiting for them without a word."""

ANSWER = 30.0
"""Seconds in which the one at the other end must answer."""

PATIENCE = 60.0
"""Seconds after which a rank that cannot notice the loss of another one, as NCCL cannot, is ended."""


class Lost(Exception):
    """Another rank did not come, is gone, or could not do what all need; the message is one sentence."""


# ---- who is who


class Place(NamedTuple):
    """What the environment says of this process."""

    rank: int
    world: int
    address: str
    port: int


def number(name: str, least: int, most: int) -> int:
    """The whole number in an environment variable that is set. Raises ValueError for another one."""
    text = os.environ[name]
    if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise ValueError(
            f"the environment variable {name} must be a whole number from {least} to {most}, got {text!r}; "
            "torchrun sets it"
        )
    return int(text)


def local_rank() -> int:
    """Number of this process on its machine, as torchrun gives it. Raises ValueError for what is no number."""
    return number("LOCAL_RANK", 0, 10**6) if "LOCAL_RANK" in os.environ else 0


def local_world() -> int:
    """How many ranks this machine has, as far as is known. Raises ValueError for what is no number."""
    least = local_rank() + 1
    return number("LOCAL_WORLD_SIZE", least, 10**6) if "LOCAL_WORLD_SIZE" in os.environ else least


def machines(world: int) -> int:
    """How many machines the ranks are on, as far as torchrun says. Raises ValueError for what is no number."""
    if "GROUP_WORLD_SIZE" in os.environ:
        return number("GROUP_WORLD_SIZE", 1, 10**6)
    return -(-world // local_world())


def restarted() -> bool:
    """Whether torchrun or Slurm has started this very command before, and starts it again after a failure."""
    names = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
    return any(os.environ.get(name, "0").strip("0") for name in names)


def place() -> Place | None:
    """The place of this process among the ranks, or None when it trains alone.

    Raises ValueError for an environment that is incomplete or contradicts itself.
    """
    hint = "torchrun sets all of them; unset them for a training on one device"
    if "RANK" not in os.environ:
        for name, alone in (("WORLD_SIZE", 1), ("LOCAL_RANK", 0)):
            if name in os.environ and (found := number(name, 0, 10**6)) > alone:
                raise ValueError(f"the environment variable {name} is {found}, but RANK is not set; {hint}")
        return None
    missing = [name for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise ValueError(f"the environment variable RANK is set, but {' and '.join(missing)} not; {hint}")
    world = number("WORLD_SIZE", 1, 10**6)
    rank = number("RANK", 0, world - 1)
    if local_world() > world:
        name = "LOCAL_WORLD_SIZE" if "LOCAL_WORLD_SIZE" in os.environ else "LOCAL_RANK"
        raise ValueError(f"the environment variable {name} is {os.environ[name]}, but WORLD_SIZE is {world}; {hint}")
    return Place(rank, world, os.environ["MASTER_ADDR"], number("MASTER_PORT", 1, 65535))


# ---- the connections


class Line:
    """The connections of rank 0 with the others; each of these has the one to rank 0.

    A message is four bytes: a number, or ``-1 - r`` for "rank r is gone".
    """

    def __init__(self, rank: int, links: dict[int, socket.socket]) -> None:
        self.rank, self.links = rank, links
        self._left, self._watch = threading.Event(), threading.Thread(target=self._guard, daemon=True)
        self._wake, self._woken = socket.socketpair()

    def agree(self, value: int) -> int:
        """Largest of all ranks' values, 0 or more; waits for all of them. Raises Lost when one is gone."""
        if self.rank:
            _send(self.links, value)
            return self._receive(0)
        values = [value]
        with selectors.DefaultSelector() as selector:
            for rank, link in self.links.items():
                selector.register(link, selectors.EVENT_READ, rank)
            while selector.get_map():
                for key, _ in selector.select():
                    values.append(self._receive(key.data))
                    selector.unregister(key.fileobj)
        _send(self.links, max(values))
        return max(values)

    def _receive(self, rank: int) -> int:
        data = b""
        while len(data) < 4:
            with suppress(OSError):
                if part := self.links[rank].recv(4 - len(data)):
                    data += part
                    continue
            self._lose(rank)
        value = int.from_bytes(data, "big", signed=True)
        if value < 0:
            self._lose(-1 - value)
        return value

    def _lose(self, rank: int) -> NoReturn:
        self._tell(rank)
        raise Lost(self.sentence(rank))

    def _tell(self, gone: int) -> None:
        """Rank 0 lets the others know who is gone."""
        if self.rank == 0:
            _send(self.links, -1 - gone)

    def sentence(self, gone: int | None) -> str:
        which = "another rank" if gone is None else f"rank {gone}"
        return f"rank {self.rank} stops, since {which} has ended, which says why unless it was killed"

    def gone(self, seconds: float) -> int | None:
        """A rank that is gone, or goes within the time; for where torch says no more than that something broke."""
        end = time.monotonic() + seconds
        while True:
            for rank, link in self.links.items():
                with suppress(BlockingIOError):
                    try:
                        data = link.recv(4, socket.MSG_PEEK | socket.MSG_DONTWAIT)
                    except ConnectionError:
                        data = b""
                    value = int.from_bytes(data, "big", signed=True) if data else -1 - rank
                    if value < 0:
                        self._tell(-1 - value)
                        return -1 - value
            if time.monotonic() > end:
                return None
            time.sleep(0.05)

    def watch(self) -> None:
        """From now on, end this process `PATIENCE` seconds after another rank has ended if it is still here."""
        if not self._watch.is_alive():
            self._watch.start()

    def _guard(self) -> None:
        poll = select.poll()
        for link in (self._woken, *self.links.values()):
            poll.register(link, select.POLLIN if link is self._woken else select.POLLRDHUP)
        poll.poll()
        if not self._left.wait(PATIENCE):
            print(f"fewlabels: {self.sentence(self.gone(0))}", file=sys.stderr, flush=True)
            os._exit(1)

    def close(self) -> None:
        self._left.set()
        if self._watch.is_alive():
            self._wake.send(b"x")
            self._watch.join()
        for link in (self._wake, self._woken, *self.links.values()):
            link.close()


def _send(links: dict[int, socket.socket], value: int) -> None:
    for link in links.values():
        with suppress(OSError):  # who is gone is seen where its answer is waited for
            link.sendall(value.to_bytes(4, "big", signed=True))


# ---- how they meet


def meet(here: Place) -> tuple[Store, Line]:
    """Wait until all ranks are there.

    Raises:
        ValueError: for an address or a port that cannot be right.
        Lost: when not all have come within `LIMIT` seconds.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # the agent's store outlives the ranks
    store = under(f"fewlabels/{attempt}", _store(here))
    waiting = _Waiting(here)
    links = _called(here, store, waiting) if here.rank == 0 else {0: _calling(here, store, waiting)}
    for link in links.values():
        link.settimeout(None)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a machine that lost its power says nothing
        for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6)):
            if hasattr(socket, option):
                link.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    line = Line(here.rank, links)
    try:
        line.agree(0)
    except BaseException:
        line.close()
        raise
    return store, line


def under(prefix: str, store: Store) -> Store:
    """The part of a store whose keys begin with `prefix`."""
    part: Store = dist.PrefixStore(prefix, store)  # type: ignore[attr-defined]
    return part


class _Waiting:
    """Tells that it waits, after a while, and ends the waiting, after a long one."""

    def __init__(self, here: Place) -> None:
        self.here, self.start, self.told = here, time.monotonic(), False

    def __call__(self, missing: list[int]) -> None:
        seconds = time.monotonic() - self.start
        ranks = ("ranks " if len(missing) > 1 else "rank ") + first(missing, 8)
        where = f"at {self.here.address}:{self.here.port} (MASTER_ADDR, MASTER_PORT)"
        if seconds > LIMIT:
            raise Lost(f"{ranks} of {self.here.world} did not come within {LIMIT:.0f} s to meet {where}")
        if seconds > QUIET and not self.told:
            self.told = True
            text = f"rank {self.here.rank} waits for {ranks} of {self.here.world} to come, {where}"
            print(f"fewlabels: {text}", file=sys.stderr, flush=True)


def _store(here: Place) -> Store:
    """The store of rank 0, or of torchrun's agent, which all ranks reach."""
    where = f"{here.address}:{here.port} (MASTER_ADDR, MASTER_PORT)"
    try:
        socket.getaddrinfo(here.address, here.port)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"the environment variable MASTER_ADDR is {here.address!r}, a machine that is not known: {reason}"
        ) from None
    server = here.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    waiting = _Waiting(here)
    while not server:
        try:
            socket.create_connection((here.address, here.port), timeout=2).close()
            break
        except OSError:
            waiting([0])
            time.sleep(0.2)
    make: Callable[..., Store] = dist.TCPStore  # type: ignore[attr-defined]
    options = {"timeout": timedelta(seconds=ANSWER * 2 / 3), "wait_for_workers": False}  # so that its thread ends soon
    try:
        return _in_time(ANSWER, lambda: make(here.address, here.port, here.world, server, **options))
    except (RuntimeError, TimeoutError) as error:
        if "EADDRINUSE" in str(error):
            raise ValueError(f"rank 0 cannot listen at {where}: the port is taken, choose another one") from None
        what = "rank 0 does not reach itself" if server else "what answers is not rank 0 of this training,"
        raise ValueError(f"{what} at {where}") from None


def _in_time(seconds: float, work: Callable[[], T]) -> T:
    """`work` in a thread of its own: one that hears of no signal and keeps to no time limit, as torch's can.

    Raises what it raises, and TimeoutError.
    """
    done: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            done.append(work())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not done:
        raise TimeoutError
    return done[0]


def _called(here: Place, store: Store, waiting: _Waiting) -> dict[int, socket.socket]:
    """Rank 0 takes the calls of the others."""
    secret = secrets.token_bytes(16)
    links: dict[int, socket.socket] = {}
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    with contextlib.ExitStack() as opened:
        server = opened.enter_context(socket.create_server(("", 0), family=family, backlog=1024, dualstack_ipv6=both))
        server.settimeout(0.2)
        store.set("rank 0", f"{secret.hex()} {server.getsockname()[1]} {_own_address(here)}")
        while missing := [rank for rank in range(1, here.world) if rank not in links]:
            try:
                waiting(missing)
            except Lost:
                _send(links, -1 - missing[0])
                raise
            with suppress(TimeoutError):
                link = opened.enter_context(server.accept()[0])
                if (rank := _hello(link, secret, here.world)) in links:
                    raise ValueError(f"the environment variable RANK is {rank} for two processes")
                if rank is not None:
                    links[rank] = link
        opened.pop_all()
        server.close()
    return links


def _hello(link: socket.socket, secret: bytes, world: int) -> int | None:
    """The rank that calls, which knows the secret from the store; None for a stranger."""
    link.settimeout(5)
    try:
        hello = link.recv(24, socket.MSG_WAITALL)
    except OSError:
        return None
    if hello[:16] != secret or len(hello) < 24:
        return None
    rank, other = int.from_bytes(hello[16:20], "big"), int.from_bytes(hello[20:], "big")
    if other != world:
        raise ValueError(f"the environment variable WORLD_SIZE is {world} for rank 0 and {other} for rank {rank}")
    return rank


def _own_address(here: Place) -> str:
    """The address from which rank 0 reaches MASTER_ADDR, which with torchrun's agent may be another machine."""
    family, kind, _, _, address = socket.getaddrinfo(here.address, here.port, type=socket.SOCK_DGRAM)[0]
    with suppress(OSError), socket.socket(family, kind) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])
    return here.address


def _calling(here: Place, store: Store, waiting: _Waiting) -> socket.socket:
    while not store.check(["rank 0"]):
        waiting([0])
        time.sleep(0.1)
    secret, port, own = store.get("rank 0").decode().split(" ")
    hello = bytes.fromhex(secret) + here.rank.to_bytes(4, "big") + here.world.to_bytes(4, "big")
    while True:
        for address in dict.fromkeys((here.address, own)):
            with suppress(OSError):
                link = socket.create_connection((address, int(port)), timeout=5)
                link.sendall(hello)
                return link
        waiting([0])
        time.sleep(0.2)
