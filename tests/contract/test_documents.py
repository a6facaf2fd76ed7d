"""What the documents point to exists: links, anchors, the files of the tree, every option of `fewlabels train`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fewlabels.algorithms import ALGORITHMS
from fewlabels.commands import evaluate, predict, train
from fewlabels.commands.options import options

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def anchors(path: Path) -> set[str]:
    """GitHub's names of a document's headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=[path.name for path in DOCUMENTS])
def test_links(path: Path) -> None:
    for name, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", path.read_text()):
        target = path.parent / name if name else path
        assert target.exists(), f"{path.name} links to {name}, which is not there"
        assert not anchor or anchor in anchors(target), f"{target.name} has no heading #{anchor}"


def test_both_readmes_have_the_same_commands_numbers_and_links() -> None:
    english, chinese = ((ROOT / f"README{language}.md").read_text() for language in ("", ".zh-CN"))
    for part in (r"```.*?```", r"<!-- bench headline -->.*<!-- end bench headline -->"):
        assert re.findall(part, english, re.S) == re.findall(part, chinese, re.S) != []
    links = [re.findall(r"\]\(([^)]*)\)", text) for text in (english, chinese)]
    assert sorted({*links[0]} ^ {*links[1]}) == ["README.md", "README.zh-CN.md"]  # each other
    numbers = [re.findall(r"\d+\.\d+", re.sub(r"```.*?```", "", text, flags=re.S)) for text in (english, chinese)]
    assert numbers[0] == numbers[1]
    assert max(len(text.splitlines()) for text in (english, chinese)) <= 150


@pytest.mark.slow
def test_the_tree_has_every_file() -> None:
    tree = (ROOT / "docs" / "architecture.md").read_text().split("<!-- tree -->")[1].split("<!-- end tree -->")[0]
    shown: list[str] = []
    folders: list[str] = []
    for indent, name in re.findall(r"^( *)([\w/]+(?:\.py)?)(?= |$)", tree, re.M):
        depth = len(indent) // 2
        folders[depth:] = [name.rstrip("/")]
        if name.endswith(".py"):
            shown.append("/".join([*folders[:depth], name]))
    files = [str(path.relative_to(ROOT)) for root in ("src", "benchmarks") for path in (ROOT / root).rglob("*.py")]
    assert sorted(shown) == sorted(files)


@pytest.mark.slow
def test_every_option_is_in_a_document() -> None:
    """All but those that `--help` explains as well and a switch's other side."""
    text = "\n".join(path.read_text() for path in DOCUMENTS)
    known = {
        o for cls in (train.Command, evaluate.Command, predict.Command, *ALGORITHMS.values()) for o in options(cls)
    }
    shown = {o for o in known if re.search(rf"(?<![\w-]){re.escape(o)}(?![\w-])", text)}
    sides = {o for o in known if o.replace("--no-", "--") in shown or o.replace(".no-", ".") in shown}
    positional = {"--run", "--paths", "--algorithm"}
    obvious = {
        "--cutout",
        "--progress",
        "--log-every",
        "--output",
    }  # --no-cutout, --no-progress, -o
    assert known - shown - sides - positional - obvious == set()
