"""docs/leaderboard.md is what the records say, its numbers are the sources', and a row can be run again."""

from __future__ import annotations

import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

import pytest

import leaderboard
import own_rows
from fewlabels.algorithms import ALGORITHMS

ROOT = Path(__file__).parents[2]
LINE = {
    "method": "FixMatch", "algorithm": "fixmatch", "data": "cifar10", "measure": "error",
    "values": {"250": {"value": 5.07, "deviation": 0.65}}, "seeds": 5, "rule": "last20", "net": "WRN-28-2",
    "steps": 2**20, "year": 2020, "source": {"name": "paper", "url": "https://arxiv.org/abs/2001.07685"},
    "via": None, "note": None,
}  # fmt: skip
RECORD = {
    "algorithm": "fixmatch", "options": "", "steps": 500, "accuracy": 90.0, "commit": "abc1234",
    "device": "CPU, 2 thread(s), x86_64", "command": "fewlabels train fixmatch --data digits.1@40 --seed 1",
}  # fmt: skip
SPEEDRUN = {
    "class": "cpu", "pretrained": False, "data": "cifar10", "labels": 250, "recipe": "fast", "accuracies": [60.0, 64.0],
    "accuracy": 62.0, "seconds": 600, "draws": [], "steps": 900, "machine": {"device": "CPU, a name", "threads": 2},
    "commit": "abc1234", "command": "python benchmarks/speedrun.py --labels 250 --draws 2",
}  # fmt: skip


def write(file: Path, *lines: dict[str, Any]) -> None:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def digits(seed: int, accuracy: float) -> dict[str, Any]:
    return RECORD | {"accuracy": accuracy, "command": f"fewlabels train fixmatch --data digits.{seed}@40 --seed {seed}"}


def test_the_document_is_that_of_the_records() -> None:
    rendered = leaderboard.render(ROOT / "results")
    assert (ROOT / "docs" / "leaderboard.md").read_text() == rendered, "run python benchmarks/leaderboard.py"


def test_published_lines() -> None:
    lines = leaderboard.published(ROOT / "results" / "published.jsonl")
    assert {line.data for line in lines} == {*leaderboard.BOARDS}
    assert all(line.source["url"].startswith("https://") and 2019 <= line.year <= 2026 for line in lines)
    for line in lines:
        assert all(0 <= line.accuracy(column)[0] <= 100 for column in line.values)
        assert {len(cell["runs"]) for cell in line.values.values() if "runs" in cell} <= {line.seeds}
        repository = line.source["url"].startswith("https://github.com/") and "/issues/" not in line.source["url"]
        assert not repository or any(len(part) == 40 for part in line.source["url"].split("/"))  # at a commit
    known = {(line.source["name"], line.method, line.data): line for line in lines}
    # by hand from the papers' and the projects' tables
    assert known["USB", "FixMatch", "cifar10"].accuracy("40") == (pytest.approx(91.67), 1.41)
    assert known["TorchSSL", "FlexMatch", "stl10"].accuracy("1000") == (94.23, 0.18)
    assert known["USB", "ReMixMatch + CoSSL", "cifar10-lt"].accuracy("1500/3000 100/100") == (86.41, 0.13)
    assert known["CoMatch", "CoMatch", "cifar10"].accuracy("40")[0] == pytest.approx(93.09, abs=0.005)
    assert known["USB", "ReMixMatch + CoSSL", "cifar100-lt"].accuracy("150/300 15/15") is None  # never run there


def test_conversion() -> None:
    line = leaderboard.Published(
        **LINE | {"values": {"40": {"runs": [10.0, 12.0, 17.0]}, "250": LINE["values"]["250"]}}
    )
    assert line.accuracy("250") == (pytest.approx(94.93), 0.65)
    assert line.accuracy("40") == (87.0, pytest.approx(statistics.stdev([10, 12, 17])))
    assert line.accuracy("4000") is None
    percent = leaderboard.Published(
        **LINE | {"measure": "accuracy", "values": {"250": {"value": 94.93, "deviation": None}}}
    )
    assert percent.accuracy("250") == (94.93, None)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data": "cifar11"}, "data is one of"),
        ({"rule": "median"}, "rule is one of last, last20"),
        ({"measure": "loss"}, "measure is one of"),
        ({"algorithm": "fixmatsch"}, "algorithm is one of"),
        ({"values": {}}, "at least one"),
        ({"values": {"300": {"value": 5.0, "deviation": None}}}, "no column '300'"),
        ({"values": {"250": {"value": 105.0, "deviation": None}}}, "0 to 100"),
        ({"values": {"250": {"value": "5.07", "deviation": None}}}, "0 to 100"),
        ({"values": {"250": {"value": 5.0}}}, "value and deviation"),
        ({"values": {"250": {"runs": []}}}, "0 to 100"),
        ({"source": {"name": "paper"}}, "name and url"),
        ({"colour": "red"}, "unknown fields: colour"),
    ],
)
def test_wrong_lines_are_told_with_their_number(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    file = tmp_path / "published.jsonl"
    write(file, LINE, LINE | change)
    with pytest.raises(ValueError, match=rf"published.jsonl, line 2: .*{told}"):
        leaderboard.published(file)
    write(file, LINE, {key: value for key, value in LINE.items() if key != "rule"})
    with pytest.raises(ValueError, match="line 2: missing or unknown fields: rule"):
        leaderboard.published(file)


def test_table(tmp_path: Path) -> None:
    other = {"250": {"value": 4.5, "deviation": None}}
    worse = {"40": {"value": 9.0, "deviation": 1.0}, "250": {"value": 6.0, "deviation": None}}
    write(
        tmp_path / "published.jsonl",
        LINE | {"method": "Best", "rule": "best", "values": other, "algorithm": None},
        LINE | {"method": "Worse", "algorithm": None, "values": worse, "via": "a letter", "note": "no EMA"},
        LINE,
        LINE | {"data": "svhn"},
    )
    named = "fewlabels train vat --data cifar10.{}@250-1 --net small-16 --seed {}"
    write(
        tmp_path / "cifar10.jsonl",
        RECORD | {"algorithm": "vat", "command": named.format(1, 1), "accuracy": 1.0},  # replaced by the last line
        RECORD | {"algorithm": "vat", "command": named.format(2, 2), "accuracy": 44.0},
        RECORD | {"algorithm": "vat", "command": named.format(1, 1), "accuracy": 40.0},
        RECORD | {"command": named.format(1, 1) + " --data.keep-labeled cat,dog", "accuracy": 99.0},  # another task
    )
    write(tmp_path / "speedrun.jsonl", SPEEDRUN)
    text = leaderboard.render(tmp_path)
    section = text.split("## CIFAR-10\n")[1].split("\n## ")[0]
    table = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in section.splitlines() if "|" in line][
        2:
    ]
    assert [row[0] for row in table[:2]] == ["**recipe fast, cpu (median 62.00)**", "**vat**"]
    assert table[0][1:8] == ["not run", "**62.00 ± 2.83**", "not run", "last", "2", "the recipe's", "900"]
    assert table[1][1:8] == ["not run", "**42.00 ± 2.83**", "not run", "last", "2", "small-16", "500"]
    assert table[2][1:4] == ["not run"] * 3
    assert {*table[2][0].strip("*").split(", ")} == ALGORITHMS.keys() - {"vat"}  # every other method of ours
    assert [row[:5] for row in table[3:]] == [
        ["[FixMatch](algorithms/fixmatch.md)", "", "94.93 ± 0.65", "", "last20"],
        ["Worse", "91.00 ± 1.00", "94.00", "", "last20"],
        ["Best", "", "95.50", "", "best"],  # the highest number, the least worth
    ]
    assert table[4][-1] == "[paper](https://arxiv.org/abs/2001.07685); via a letter; no EMA" and table[4][-2] == "2^20"
    assert f"**all {len(ALGORITHMS)} methods of fewlabels** | not run" in text.split("## SVHN")[1]
    assert named.format(2, 2) in text.split("## How ours were run")[1] and "cat,dog" not in text


def test_runs_of_a_row_differ_in_the_seed_alone() -> None:
    from algorithms import TASKS, command

    kinds = {task: {own_rows._kind(command(task, "vat", "--eps 6", seed)) for seed in (1, 2, 31)} for task in TASKS}
    assert all(len(kind) == 1 for kind in kinds.values())
    assert len(set.union(*kinds.values())) == len(TASKS)


@pytest.mark.parametrize(
    ("found", "status", "told"),
    [
        ([90.0, 96.0], 0, "equal"),
        ([96.0, 90.0], 0, "within the deviation of 4.24, +0.00 points"),
        ([94.0, 100.0], 0, "within the deviation of 4.24, +4.00 points"),
        ([85.0, 91.0], 1, "not within the deviation of 4.24, -5.00 points"),
    ],
)
def test_rerun(
    found: list[float], status: int, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    write(tmp_path / "algorithms_digits.jsonl", digits(1, 90.0), digits(2, 96.0))
    asked, answers = [], iter(found)

    def stub(command: str, folder: Path, threads: int) -> list[float]:
        asked.append((command, threads))
        assert folder.is_dir() and not list(folder.iterdir())
        return [next(answers)]

    monkeypatch.setattr(leaderboard, "run", stub)
    options = ["--results", str(tmp_path), "--rerun", "algorithms_digits/fixmatch-500"]
    assert leaderboard.main([*options, "--dry-run"]) == 0 and not asked
    commands = [digits(seed, 0)["command"] for seed in (1, 2)]
    assert capsys.readouterr().out.splitlines() == commands
    assert leaderboard.main(options) == status
    assert asked == [(command, 2) for command in commands]  # with the threads of the record
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("algorithms_digits/fixmatch-500: recorded 93.00 ± 4.24 (2 runs), now ")
    assert last.endswith(f": {told}")


def test_rerun_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    write(tmp_path / "algorithms_digits.jsonl", digits(1, 90.0))
    options = ["--results", str(tmp_path), "--rerun"]
    monkeypatch.setattr(leaderboard, "run", lambda *_: [91.0])
    assert leaderboard.main([*options, "algorithms_digits/fixmatch-500"]) == 1
    assert "not equal, +1.00 points; one run has no deviation" in capsys.readouterr().out
    monkeypatch.setattr(leaderboard, "run", lambda *_: None)
    assert leaderboard.main([*options, "algorithms_digits/fixmatch-500"]) == 1
    assert leaderboard.main([*options, "algorithms_digits/fixmatch-600"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "is algorithms_digits/fixmatch-500 meant?" in told
    for wrong in (["--list"], []):
        assert leaderboard.main(["--results", str(tmp_path / "none"), *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(SystemExit):
        leaderboard.main(["--dry-run"])


def test_a_speedrun_is_run_in_folders_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    learned = SPEEDRUN | {"pretrained": True, "command": SPEEDRUN["command"] + " --device cuda"}
    write(tmp_path / "speedrun.jsonl", SPEEDRUN, learned, SPEEDRUN | {"accuracies": [70.0]})
    known = own_rows.rows(tmp_path)
    assert [*known] == ["speedrun/fast-cpu-250-900", "speedrun/fast-cpu-learned-weights-250-900"]
    assert known["speedrun/fast-cpu-250-900"].accuracies == (70.0,)  # of the same command the last line
    fails = False

    def stub(words: list[str], **_: Any) -> Any:
        assert words[1:5] == ["benchmarks/speedrun.py", "--labels", "250", "--draws"]
        folder = Path(words[words.index("--results") + 1])
        assert folder == tmp_path / "fresh" and Path(words[words.index("--runs") + 1]).parent == folder
        if not fails:
            write(folder / "speedrun.jsonl", SPEEDRUN | {"accuracies": [61.0, 62.0]})
        return subprocess.CompletedProcess(words, 1, "", "a line\nthere is no cifar10\n")  # a target that was missed

    monkeypatch.setattr(own_rows.subprocess, "run", stub)
    (tmp_path / "fresh").mkdir()
    assert own_rows.run(SPEEDRUN["command"], tmp_path / "fresh", 2) == [61.0, 62.0]
    fails = True
    (tmp_path / "fresh" / "speedrun.jsonl").unlink()
    assert own_rows.run(SPEEDRUN["command"], tmp_path / "fresh", 2) is None
    assert capsys.readouterr().out == "there is no cifar10\n"
