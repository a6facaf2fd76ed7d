"""fewlabels weights: small learned nets, and their weights on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from fewlabels.commands.options import UsageError, parse
from fewlabels.commands.tables import print_whole, table
from fewlabels.nets.complaints import offline_if_so
from fewlabels.nets.learned import DINO, NETS, at_hand, named
from fewlabels.runs.run import NotWritten
from fewlabels.runtime.screen import Screen
from fewlabels.runtime.words import nearest, unknown

HELP = """\
fewlabels weights: small learned nets, from which a training on few labels starts.

usage: fewlabels weights list
       fewlabels weights fetch NAME
"""


@dataclass(frozen=True, kw_only=True)
class List:
    """List small learned nets: parameters, size, licence, and whether their weights are at hand."""

    json: bool = False
    """Print JSON."""


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """Fetch the weights of a net into the cache of the Hugging Face hub."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """A name of `fewlabels weights list`, or another one that timm has on the hub."""


def main(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if args[0] not in COMMANDS:
        raise UsageError(f"weights has no command {unknown(args[0], COMMANDS)}")
    cls, run = COMMANDS[args[0]]
    return run(parse(cls, args[1:], prog=f"fewlabels weights {args[0]}"))


def run_list(command: List) -> int:
    found = [(net, at_hand(net)) for net in NETS]
    if command.json:
        rows = [{**net._asdict(), "at_hand": None if place is None else str(place[1])} for net, place in found]
        print(json.dumps(rows))
        return 0
    heads = ("name", "parameters", "file", "licence", "at hand", "remark")
    lines = [
        [net.name, f"{net.parameters:.1f}M", f"{net.megabytes} MB", net.licence, place[0] if place else "", net.remark]
        for net, place in found
    ]
    shown = table(heads, lines, left=(heads[0], *heads[3:]))
    print_whole(Screen(), shown)
    print("fetch one with `fewlabels weights fetch NAME`; take it with --net timm:NAME --net.pretrained True")
    return 0


def run_fetch(command: Fetch) -> int:
    net = named(command.name)
    if net is not None and (place := at_hand(net)) is not None:
        print(f"{net.name} is at hand: {place[1]}")
        return 0
    name, licence = (net.name, net.licence) if net else _of_timm(command.name)
    if licence == DINO:
        print(
            f"{name}: its licence is the {licence}, https://ai.meta.com/resources/models-and-libraries/dinov3-license"
        )
    path = _download(name)
    print(f"{name} ({licence}): {path}")
    print(f"take it with --net timm:{name} --net.pretrained True")
    return 0


def _of_timm(word: str) -> tuple[str, str]:
    """Full name and licence of a net that is not in the list. Raises UsageError for one that is not on the hub."""
    import timm

    plain = word.removeprefix("timm:")
    try:
        known = timm.get_pretrained_cfg(plain) if timm.is_model(plain.partition(".")[0]) else None
    except RuntimeError:
        known = None
    if known is None or not known.hf_hub_id:
        near = nearest(plain, [net.name for net in NETS])
        raise UsageError(f"there are no weights {word!r}{near} (`fewlabels weights list` prints the small ones)")
    name = f"{known.architecture}.{known.tag}" if known.tag else str(known.architecture)
    return name, str(known.license or "licence not stated")


def _download(name: str) -> str:
    """The file of weights in the hub's cache. Raises NotWritten where it cannot be had."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        with offline_if_so(f"timm:{name}"):
            try:
                return hf_hub_download(f"timm/{name}", "model.safetensors")
            except EntryNotFoundError:
                return hf_hub_download(f"timm/{name}", "pytorch_model.bin")
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(getattr(error, "strerror", "") or error).strip().splitlines()[0].rstrip(".")
        raise NotWritten(
            f"the weights of {name} cannot be fetched ({reason}); with a network this command does it, and a file "
            "that was brought here otherwise is taken with --net.pretrained FILE"
        ) from None


COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {"list": (List, run_list), "fetch": (Fetch, run_fetch)}
