"""The shape of the package: notebooks import only lower numbers, cells stay short, importing is cheap, names resolve."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import waddington_nb as wd

NBS = Path(__file__).resolve().parent.parent / "nbs"
NUMBERED = {re.sub(r"^\d+_", "", path.stem): path for path in sorted(NBS.glob("[0-9]*.ipynb"))}


def exported(path: Path) -> list[str]:
    cells = nbformat.read(path, as_version=4).cells
    return [c.source for c in cells if c.cell_type == "code" and re.match(r"#\|\s*exporti?\b", c.source)]


def imported(source: str) -> set[str]:
    "Modules of this package that a piece of code imports."
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "waddington_nb":
            modules |= {alias.name for alias in node.names if alias.name in NUMBERED}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("waddington_nb."):
            modules.add(node.module.split(".")[1])
    return modules


@pytest.mark.parametrize("module", NUMBERED)
def test_imports_only_lower_numbers(module):
    number = lambda name: int(NUMBERED[name].stem.split("_")[0])
    used = set().union(*map(imported, exported(NUMBERED[module])))
    assert {name for name in used if number(name) >= number(module)} == set()


@pytest.mark.parametrize("module", NUMBERED)
def test_exported_cells_are_short(module):
    "One idea a cell: forty lines at most, a class apart, whose methods count each."
    for source in exported(NUMBERED[module]):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                lines = node.end_lineno - node.lineno + 1
                assert lines <= 40, f"{module}.{node.name} has {lines} lines"


def test_every_public_function_is_documented():
    for module, path in NUMBERED.items():
        for source in exported(path):
            for node in ast.parse(source).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                    assert ast.get_docstring(node), f"{module}.{node.name} has no docstring"


def test_public_names_resolve():
    assert all(getattr(wd, name) is not None for name in wd.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = wd.nothing


def test_importing_loads_nothing_heavy():
    code = "import sys, waddington_nb; print([m for m in ('torch', 'scanpy', 'muon', 'nbdev', 'fastcore') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_run_loads_only_what_it_needs():
    code = """
import sys
import waddington_nb.cli, waddington_nb.evaluation, waddington_nb.reports, waddington_nb.uncertainty
print([name for name in ("muon", "mudata", "nbdev", "fastcore", "scanpy", "distributed") if name in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
