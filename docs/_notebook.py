"""Run the cells of notebook.ipynb and keep what they show: python docs/_notebook.py, with the package installed."""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).with_name("notebook.ipynb")


def ran(notebook: Any) -> tuple[Any, dict[str, Any]]:
    """The notebook with its outputs anew, and the names that its cells leave; raises what a cell raises.

    In this process, one cell after the other with the same names, as Jupyter does it: no kernel to start, and an error
    has its own traceback. What a cell prints comes before what it shows.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    cells, count = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            outputs = _outputs("".join(cell["source"]), f"cell {count}", names, count)
            cell = {**cell, "execution_count": count, "outputs": outputs}
        cells.append(cell)
    return {**notebook, "cells": cells}, names


def _outputs(source: str, where: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    said, shown = {"stdout": io.StringIO(), "stderr": io.StringIO()}, None
    with contextlib.redirect_stdout(said["stdout"]), contextlib.redirect_stderr(said["stderr"]):
        exec(compile(tree, where, "exec"), names)
        if isinstance(last, ast.Expr):
            shown = eval(compile(ast.Expression(last.value), where, "eval"), names)
    outputs: list[dict[str, Any]] = [
        {"output_type": "stream", "name": name, "text": text.getvalue().splitlines(True)}
        for name, text in said.items()
        if text.getvalue()
    ]
    if shown is not None:
        result = {"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": _data(shown)}
        outputs.append(result)
    return outputs


def _data(shown: Any) -> dict[str, Any]:
    """An object in the forms in which a notebook shows it."""
    if (svg := getattr(shown, "_repr_svg_", None)) is not None:
        return {"image/svg+xml": svg().splitlines(True), "text/plain": [f"<{type(shown).__name__}>"]}
    if (png := getattr(shown, "_repr_png_", None)) is not None:
        return {"image/png": base64.b64encode(png()).decode(), "text/plain": [repr(shown).partition(" at 0x")[0] + ">"]}
    return {"text/plain": repr(shown).splitlines(True)}


if __name__ == "__main__":
    made, _ = ran(json.loads(NOTEBOOK.read_text()))
    NOTEBOOK.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
