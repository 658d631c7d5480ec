"""The notebook among the samples runs from top to bottom, and its results show themselves."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import model

from delift_cli.compiled import code_folder

pytest.importorskip("uplot", reason="the drawing library is not installed: pip install 'delift-cli[report]'")
NOTEBOOK = Path(__file__).parents[2] / "samples" / "notebook.ipynb"


def run(source: str, names: dict[str, Any]) -> Any:
    """What a notebook does with a cell: run it, and give back what its last line comes to."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_it_runs_from_top_to_bottom(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code_folder()  # remembered, so that what is compiled already is not compiled again
    monkeypatch.setenv("DELIFT_MODEL", str(model()))
    monkeypatch.setenv("DELIFT_CACHE", str(tmp_path / "kept"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.chdir(NOTEBOOK.parent)
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    assert all(cell["outputs"] == [] for cell in cells if cell["cell_type"] == "code")
    names: dict[str, Any] = {}
    shown = [run("".join(cell["source"]), names) for cell in cells if cell["cell_type"] == "code"]
    tables = [each._repr_html_() for each in shown if hasattr(each, "_repr_html_")]
    assert len(tables) == 4
    assert all(table.startswith("<table") and table.endswith("</table>") for table in tables)
    page = shown[-1]
    assert page.is_relative_to(tmp_path)
    assert f"{len(names['subset'])} records, in the order" in page.read_text("utf-8")
