"""Every notebook runs, cell by cell, as it is shown."""

from pathlib import Path

import pytest
from nbdev import test as nbdev_test

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "nbs").rglob("[!_.]*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(notebook, monkeypatch):
    monkeypatch.chdir(notebook.parent)
    monkeypatch.setenv("MPLBACKEND", "agg")
    passed, _ = nbdev_test.test_nb(notebook, skip_flags=["notest", "slow"], do_print=False)
    assert passed
