"""The numbers of a run as tables: for the terminal, and as Markdown between markers of the documents."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.record import Result
from bench.step import OWN

DOCUMENTS = (Path("README.md"), Path("README.zh-CN.md"), Path("docs") / "performance.md")
"""What holds rendered tables, from the root of a checkout."""

HEADLINE = "headline"
_MARKED = re.compile(r"(<!-- bench ([\w.-]+) -->\n)(.*?)(<!-- end bench \2 -->)", re.S)


class Table(NamedTuple):
    head: tuple[str, ...]
    rows: Sequence[Sequence[str]]


def tables(record: Result) -> list[Table]:
    """What a run measured."""
    return _TABLES[record["bench"].partition("-")[0]](record)


def caption(record: Result) -> str:
    """Where and with what."""
    machine = record["machine"]
    options = record["options"]
    beside = f" and {options['uratio']} times as many unlabeled" if "uratio" in options else ""
    said = [
        machine["device"],
        f"{machine['threads']} thread(s)" if record["device"] == "cpu" else None,
        f"net {options['net']}" if "net" in options else None,
        f"batch {options['batch']}{beside}",
        f"{options['rounds']} rounds",
        f"torch {machine['versions']['torch']}, Pillow {machine['versions']['pillow']}",
        machine["made"].split(" ")[0],
        f"commit {machine['versions']['commit']}" if machine["versions"].get("commit") else None,
        f"control {record['control']:.3f}",
        None if record["valid"] else "NOT VALID: the control strays",
    ]
    return ", ".join(part for part in said if part)


def markdown(table: Table, left: Collection[int] = (0,)) -> str:
    """Markdown; the columns `left` are words, the others numbers."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    rule = line("---" if i in left else "---:" for i in range(len(table.head)))
    return "\n".join([line(table.head), rule, *map(line, table.rows)]) + "\n"


def render(text: str, records: Iterable[Result]) -> str:
    """`text` with the tables of the records between its markers."""
    records = [r for r in records if r["valid"]]

    def fill(match: re.Match[str]) -> str:
        name = match[2]
        if name == HEADLINE:
            body = markdown(headline(records))
        else:
            mine = [r for r in records if r["bench"] == name]
            blocks = ["\n".join([*map(markdown, tables(r)), f"{caption(r)}.\n"]) for r in mine]
            body = "\n".join(blocks) or "Not measured yet.\n"
        return match[1] + body + match[4]

    return _MARKED.sub(fill, text)


def read(folder: Path) -> list[Result]:
    """The records of a folder, by name; those of the CPU first."""
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return sorted(records, key=lambda r: (r["device"] != "cpu", r["device"], r["bench"]))


def headline(records: Iterable[Result]) -> Table:
    """One line for each figure that stands on its own."""
    rows = []
    for record in records:
        where = record["machine"]["device"]
        figures = _HEADLINES[record["bench"]](record) if record["bench"] in _HEADLINES else []
        rows += [(what, f"{value:.1f} times as fast", where) for what, value in figures]
    return Table(("what", "fewlabels is", "on"), rows or [("nothing yet", "", "")])


# ---- one function for each sub-command


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g}" if seconds < 0.1 else f"{1000 * seconds:.0f}"


def _times(ratio: Mapping[str, float]) -> str:
    return f"{ratio['median']:.3g} ({ratio['low']:.3g} to {ratio['high']:.3g})"


def _augment(record: Result) -> list[Table]:
    batch = record["options"]["batch"]
    rows = []
    for name in record["exact"]:
        for row in record[name]["rows"]:
            rate = f"{batch / row['seconds']:,.0f}"
            rows.append((f"{name}: {row['name']}", _ms(row["seconds"]), rate, _times(row["ratio"])))
    return [Table(("policy", f"ms for {batch} images", "images/s", "times as fast as Pillow"), rows)]


def _data(record: Result) -> list[Table]:
    alone, wall = record["processor"]["rows"], record["wall"]["rows"]
    ours = wall[-1]["seconds"]
    rows = [(f"{r['name']}, processor time", _ms(r["seconds"]), _times(r["ratio"])) for r in alone]
    rows += [(f"{r['name']}, wall", _ms(r["seconds"]), f"{wall[0]['seconds'] / r['seconds']:.3g}") for r in wall[:-1]]
    rows.append(("fewlabels, wall", _ms(ours), f"{wall[0]['seconds'] / ours:.3g}"))
    return [Table(("source of a batch", "ms a batch", "times as fast as without workers"), rows)]


def _step(record: Result) -> list[Table]:
    far = {c["name"]: f"{c['difference']:.2g} of {c['tolerance']:g}" for c in record["compared"]}
    rows, before = [], None
    for row in record["rows"]:
        over = f"{before / row['seconds']:.3g}" if before and row["name"] != OWN else ""
        before = row["seconds"]
        rows.append((row["name"], _ms(row["seconds"]), _times(row["ratio"]), over, far.get(row["name"], "")))
    return [Table(("step", "ms", "times as fast as the first", "as the one before", "losses differ by"), rows)]


def _cost(record: Result) -> list[Table]:
    rows = [
        (row["name"], _ms(row["seconds"]), _ms(row["passes"]), f"{row['ratio']['median']:.3f}", f"{row['cost']:.3f}")
        for row in sorted(record["rows"], key=lambda row: -row["cost"])
    ]
    return [Table(("method", "ms a step", "ms of its passes", "ratio", "as FixMatch's ratio"), rows)]


def _ceiling(record: Result) -> list[Table]:
    rate = record["pairs_per_second_per_core"]
    rows = [
        ("copying (read and written)", f"{record['bytes_per_second'] / 1e9:,.1f} GB/s"),
        (f"matrix product, {record['precision'].removeprefix('torch.')}", f"{record['flops'] / 1e12:,.3g} TFLOP/s"),
    ]
    if record["launches_per_second"]:
        rows.append(("kernels started", f"{record['launches_per_second']:,.0f} a second"))
    rows += [(f"weak and strong views, {name}", f"{value:,.0f} images/s a core") for name, value in rate.items()]
    for floor in record["floors"]:
        how = "weak view without gradient" if floor["weak_without_gradient"] else "one graph"
        how += ", compiled" if floor["compiled"] else ""
        size = f"{floor['gflop']:,.0f} GFLOP, {floor['gigabytes']:.3g} GB"
        rows.append((f"floor of a step, {how} ({size})", f"{_ms(floor['seconds'])} ms"))
    rows.append(("our step", f"{_ms(record['step_seconds'])} ms, {100 * record['share_of_floor']:.0f} % of its floor"))
    rows.append(("2^20 of them", f"{record['hours_for_2_20']:,.3g} h"))
    return [Table(("what", "value"), rows)]


def _e2e(record: Result) -> list[Table]:
    whole = record["step_seconds"]
    rows = [(name, _ms(s), f"{100 * s / whole:.1f} %") for name, s in record["seconds"].items()]
    rows.append(("whole step", _ms(whole), f"{100 * record['share_outside']:.1f} % beside the net"))
    out = [Table(("part of our step", "ms", "share"), rows)]
    steps = [(r["name"], _ms(r["seconds"]), _times(r["ratio"])) for r in record["whole"]["rows"]]
    rate = f"{record['images_per_second']:,.0f} images/s, {record['hours_for_2_20']:,.3g} h for 2^20 steps"
    steps.append(("fewlabels on the wall", rate, ""))
    return [*out, Table(("whole step", "ms", "times as fast"), steps)]


def _scale(record: Result) -> list[Table]:
    rows = []
    for (size, memory), whole, data in zip(
        record["memory"].items(), record["whole"]["rows"], record["data"]["rows"], strict=True
    ):
        times = [_ms(whole["seconds"]), _times(whole["ratio"]), _ms(data["seconds"]), _times(data["ratio"])]
        rows.append((f"{int(size):,}", *times, f"{memory['resident'] / 1e6:,.0f}", f"{memory['over_uint8']:.2f}"))
    head = ("images", "step ms", "times as fast", "data ms", "times as fast", "resident MB", "over uint8")
    return [Table(head, rows)]


def _peers(record: Result) -> list[Table]:
    out = []
    for part, title in (("data", "ms a batch"), ("step", "ms a step")):
        rows = []
        for row in record[part]:
            rows.append((row["name"], _ms(row["seconds"]), f"{row['ratio']:.3g}"))
        if rows:
            out.append(Table((f"{part}, wall", title, "fewlabels is times as fast"), rows))
    return out


_TABLES: Mapping[str, Callable[[Result], list[Table]]] = {
    "augment": _augment,
    "data": _data,
    "step": _step,
    "cost": _cost,
    "ceiling": _ceiling,
    "e2e": _e2e,
    "scale": _scale,
    "peers": _peers,
}


Figure = tuple[str, float]


def _head_augment(record: Result) -> list[Figure]:
    names = {"kekmodel": "two operations", "three_op": "three operations"}
    same = "the same bits as Pillow image by image"
    return [(f"weak and strong views, {text}, {same}", record[key]["ratio"]) for key, text in names.items()]


def _head_e2e(record: Result) -> list[Figure]:
    what = "whole step with a tiny net, against DataLoader, Pillow and the usual step"
    return [(what, record["ratio"])] if "ratio" in record else []


def _head_step(record: Result) -> list[Figure]:
    own = [row for row in record["rows"] if row["name"].startswith(OWN)]
    best = max(own, key=lambda row: row["ratio"]["median"])
    shown = {row["name"]: row["ratio"]["median"] for row in (own[0], best)}
    return [
        (f"{name}, {record['options']['net']} without data, against the usual step", v) for name, v in shown.items()
    ]


def _head_peers(record: Result) -> list[Figure]:
    return [(f"{part}, against {row['name']}", row["ratio"]) for part in ("data", "step") for row in record[part]]


_HEADLINES: Mapping[str, Callable[[Result], list[Figure]]] = {
    "augment": _head_augment,
    "e2e": _head_e2e,
    "step": _head_step,
    "peers": _head_peers,
}
