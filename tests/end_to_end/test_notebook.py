"""The tour in docs/notebook.ipynb runs from top to bottom, and what it shows was printed by its cells."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from fewlabels.report.charts import Series, curves, drawing

DOCS = Path(__file__).parents[2] / "docs"


def shown(notebook: Any) -> list[list[Any]]:
    """The kinds of what each cell shows."""
    outputs = [cell.get("outputs", []) for cell in notebook["cells"]]
    return [[(o["output_type"], o.get("name"), sorted(o.get("data", {}))) for o in some] for some in outputs]


@pytest.fixture
def notebook() -> Any:
    return json.loads((DOCS / "notebook.ipynb").read_text())


@pytest.mark.slow
def test_the_cells_run_in_turn_and_leave_nothing_behind(
    notebook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("_notebook", DOCS / "_notebook.py")
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    (tmp_path / "work").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    made, names = module.ran(notebook)
    assert Path.cwd() == tmp_path / "work" and not os.listdir()
    assert {name.partition("_")[0] for name in os.listdir(tmp_path / "temporary")} <= {"torchinductor"}  # torch's cache
    right = names["clf"].score(names["images"][names["test"]], names["digits"].target[names["test"]])
    assert right > 0.75  # chance is 0.1
    # the kept outputs are of these cells: other machines add in another order, and numbers differ
    assert shown(made) == shown(notebook)


def test_what_is_kept_has_outputs_in_order_and_nothing_of_a_machine(notebook: Any) -> None:
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(bool(cell["outputs"]) for cell in cells) >= len(cells) - 2  # all but the first and the last
    assert all(cell["metadata"] == {} for cell in notebook["cells"]) and "\x1b" not in json.dumps(notebook)
    text = json.dumps([o for c in cells for o in c["outputs"]], ensure_ascii=False)
    assert not re.search(r"(?<![\w<])/(tmp|home|root|work|opt|usr)/|0x[0-9a-f]{8}|\d\d:\d\d:\d\d", text)


def test_links_of_the_text_lead_somewhere(notebook: Any) -> None:
    text = "".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert links and all((DOCS / link).exists() for link in links)


def test_a_drawing_is_a_file_of_its_own_with_the_curves_of_the_page() -> None:
    every = [Series("a < b", [0, 50, 100], [10, 90, 55.5]), Series("c", [0, 100], [0, 1], faint=True)]
    root = ElementTree.fromstring(drawing(every, unit="%", whole=True))
    (page,) = ElementTree.fromstring(curves("t", every, unit="%", whole=True)).iter("svg")
    name = "{http://www.w3.org/2000/svg}"
    points = [line.get("points") for line in root.iter(f"{name}polyline")]
    assert points == [line.get("points") for line in page.iter("polyline")] and len(points) == 2
    words = [text.text for text in root.iter(f"{name}text")][-2:]
    assert words == ["— a < b 55.5 %", "— c 1.0 %"]
    used = {*re.findall(r"var\((--\w+)\)", ElementTree.tostring(root, "unicode"))}
    assert used <= {*re.findall(r"(--\w+):", next(root.iter(f"{name}style")).text or "")}  # no colour from elsewhere
