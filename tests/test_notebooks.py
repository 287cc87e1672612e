"""Every notebook runs, cell by cell, as it is shown."""

import pkgutil
from importlib import import_module
from pathlib import Path

import pytest
from nbdev import test as nbdev_test

import waddington_nb as wd

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "nbs").rglob("[!_.]*.ipynb"))


@pytest.fixture
def registries():
    "What a notebook registers anew (verbs by kind of task, loaders by kind of model) is undone: the next one finds the package's own."
    modules = [import_module(f"waddington_nb.{found.name}") for found in pkgutil.iter_modules(wd.__path__)]
    values = [value for module in modules for value in vars(module).values()]
    verbs = {
        id(v): (v, dict(v.registry)) for v in values if hasattr(v, "registry") and hasattr(v, "dispatch")
    }
    tables = {id(v): (v, dict(v)) for v in values if type(v) is dict}
    yield
    for verb, registered in verbs.values():
        for kind, implementation in registered.items():
            verb.register(kind, implementation)
    for table, kept in tables.values():
        table.update(kept)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(notebook, monkeypatch, registries):
    monkeypatch.chdir(notebook.parent)
    monkeypatch.setenv("MPLBACKEND", "agg")
    passed, _ = nbdev_test.test_nb(notebook, skip_flags=["notest", "slow"], do_print=False)
    assert passed
