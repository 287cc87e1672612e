"""Files of more cells than fit: samples, passes over X, damage in the middle of one, and what a run costs."""

import warnings
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import ARMS, GROUPS
from scipy import sparse

import waddington_nb.measurements as measurements
from waddington_nb import cli
from waddington_nb.core import DataError
from waddington_nb.folders import fingerprint
from waddington_nb.tasks import Task

ASKED = {"group_key": "cell_type", "hold_out_group": "NK", "n_genes": 120}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    "Pieces of 100 cells."
    monkeypatch.setattr(measurements, "PIECE", 1.0)


@pytest.fixture(scope="module")
def crowd() -> ad.AnnData:
    "Counts of 900 cells in three types, control or IFNB; cells in no order."
    rng, types = np.random.default_rng(0), np.repeat(["B", "NK", "T"], 300)
    obs = pd.DataFrame({"perturbation": ["control", "IFNB"] * 450, "cell_type": types})
    rate = np.random.default_rng(1).gamma(0.5, 1.0, (3, 300))[np.repeat([0, 1, 2], 300)]
    rate[obs["perturbation"] == "IFNB", :15] *= 3
    obs.index = [f"cell{i}" for i in rng.permutation(900)]
    cells = ad.AnnData(sparse.csr_matrix(rng.poisson(rate).astype("float32")), obs=obs)
    cells.var_names = [f"gene{i}" for i in range(300)]
    return cells


def written(cells: ad.AnnData, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cells = cells.copy()  # writing changes the columns of obs
        cells.write_zarr(path) if path.suffix == ".zarr" else cells.write_h5ad(path)
    return path


def refused(path, **options) -> str:
    with pytest.raises(DataError) as error:
        Task(path, **ASKED | {"max_cells_per_condition": 100} | options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["c.h5ad", "c.zarr"])
def test_with_room_for_all_a_task_is_the_same_to_the_byte(crowd, tmp_path, name):
    path, whole = written(crowd, tmp_path / name), Task(crowd, **ASKED)
    passed = Task(path, max_cells_per_condition=150, **ASKED)
    assert fingerprint(passed) == fingerprint(whole) and passed.notes == whole.notes


def test_a_sample_chooses_genes_as_all_cells_do(crowd, tmp_path):
    whole = Task(crowd, **ASKED)
    for data in (crowd, written(crowd, tmp_path / "c.h5ad"), written(crowd, tmp_path / "c.zarr")):
        some = Task(data, max_cells_per_condition=40, **ASKED)
        assert len(some.names) == 240 and (some.genes == whole.genes).all()
        assert (some.x == whole.x[np.isin(whole.names, some.names)]).all()
    assert "240 of 900 cells" in some.notes[0]
    other = Task(crowd, max_cells_per_condition=40, seed=1, **ASKED)
    assert set(other.names) != set(some.names) and (other.genes == some.genes).all()


def test_more_than_the_limit_is_sampled_unasked(crowd, monkeypatch):
    monkeypatch.setattr("waddington_nb.tasks.MAX_CELLS", 600)
    task = Task(crowd, **ASKED)
    assert len(task.names) == 600 and "at most 100 of a group" in task.notes[0]


@pytest.mark.parametrize("held", [{"hold_out_fraction": 0.5}, {"hold_out_perturbation": "IFNB"}])
def test_held_out_cells_have_no_vote(crowd, held):
    "Also with a share held out, where cells of the same condition vote."
    cells = crowd.copy()
    cells.obs.loc[cells.obs["perturbation"] == "IFNB", "perturbation"] = ["IFNB", "TNF", "TNF"] * 150
    asked = {"group_key": "cell_type", "n_genes": 120, "max_cells_per_condition": 40} | held
    before, noise = Task(cells, **asked), cells.copy()
    out = noise.obs_names.isin(before.names[before.is_truth])
    out |= (noise.obs["perturbation"] == held.get("hold_out_perturbation")).to_numpy()
    dense = noise.X.toarray()
    dense[out] = np.random.default_rng(9).poisson(20.0, (out.sum(), 300))
    noise.X = sparse.csr_matrix(dense)
    after = Task(noise, **asked)
    assert (after.genes == before.genes).all() and (after.x != before.x)[before.is_truth].any()


def test_a_layer_and_features_that_are_no_genes(crowd, tmp_path):
    cells = crowd.copy()
    cells.layers["counts"], cells.X = cells.X, sparse.csr_matrix(np.log1p(cells.X.toarray()) - 1)
    cells.var["feature_types"] = ["Gene Expression"] * 290 + ["Antibody Capture"] * 10
    asked = ASKED | {"layer": "counts"}
    some = Task(written(cells, tmp_path / "c.h5ad"), max_cells_per_condition=40, **asked)
    assert (some.genes == Task(cells, **asked).genes).all() and set(some.genes) <= set(cells.var_names[:290])


def test_a_store_that_was_cut_short(crowd, tmp_path):
    path = written(crowd, tmp_path / "c.zarr")
    pieces = [p for p in (path / "X" / "data").rglob("*") if p.is_file() and p.name.isdecimal()]
    whole = pieces[-1].read_bytes()
    pieces[-1].write_bytes(whole[: len(whole) // 2])
    assert str(path) in (said := refused(path)) and "truncated or damaged" in said
    pieces[-1].unlink()
    assert "pieces of X/data are missing" in refused(path)
    assert "pieces of X/data are missing" in refused(path, max_cells_per_condition=None)


def test_a_piece_that_cannot_be_read_in_the_middle_of_a_pass(crowd, tmp_path, monkeypatch):
    monkeypatch.setattr(
        measurements, "_SMALL", 0
    )  # the first look at a file reads no array of X, as with a large file
    path = written(crowd, tmp_path / "c.h5ad")
    with h5py.File(path, "r+") as file:
        for name in ("data", "indices"):
            values = file["X"][name][:]
            del file["X"][name]
            file["X"].create_dataset(name, data=values, chunks=(4000,), compression="gzip")
        chunk = file["X/data"].id.get_chunk_info(file["X/data"].id.get_num_chunks() // 2)
    damaged = bytearray(path.read_bytes())
    damaged[chunk.byte_offset + 10 : chunk.byte_offset + 200] = bytes(190)
    path.write_bytes(damaged)
    said = refused(path)
    assert str(path) in said and "cells 0 to" not in said and "cells " in said


def test_values_that_stand_out_in_the_middle_of_a_pass(crowd, tmp_path):
    for value, told in [(np.nan, "NaN"), (-1.0, "negative"), (0.5, "fractions")]:
        cells = crowd.copy()
        kept = Task(cells, max_cells_per_condition=40, **ASKED).names
        row = int(np.flatnonzero(~cells.obs_names.isin(kept))[-1])
        cells.X.data[cells.X.indptr[row]] = value
        said = refused(written(cells, tmp_path / f"{told}.h5ad"), max_cells_per_condition=40)
        assert told in said and f"cells {row // 100 * 100} to" in said


def test_samples_that_are_too_small(crowd, tmp_path, waddington):
    assert "give at least 20" in refused(crowd, max_cells_per_condition=19)
    path = written(crowd, tmp_path / "c.h5ad")
    asked = [*GROUPS, "--hold-out", "NK"]
    code, said = waddington("run", path, *asked, "--max-cells-per-condition", "5", "--out", tmp_path / "run")
    assert code == 2 and "max_cells_per_condition is 5" in said and not (tmp_path / "run").exists()


def test_a_run_says_what_it_would_cost_and_what_it_did(crowd, tmp_path, capsys, monkeypatch):
    path, out = written(crowd, tmp_path / "c.h5ad"), tmp_path / "run"
    command = ["run", str(path), *ARMS, "--out", str(out)]
    assert cli.main([*command, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "900 cells" in said and "expected: " in said and "GB of memory" in said and not out.exists()
    monkeypatch.setitem(cli.COMMANDS, "run", lambda options: print("done"))
    assert cli.main(command) == 0
    assert "of processor time), at most" in capsys.readouterr().out.splitlines()[-1]


def test_a_dry_run_refuses_what_a_run_would(crowd, tmp_path, waddington):
    path = written(crowd, tmp_path / "c.h5ad")
    asked = ["--perturbation-key", "perturbation", "--control", "control", "--dry-run"]
    for more, told in [
        (["--group-key", "cell_type", "--hold-out", "nk cells"], "nk cells"),
        (["--hold-out-time", "3", "--time-key", "perturbation"], "--dry-run knows no costs"),
    ]:
        code, said = waddington("run", path, *asked, *more)
        assert code == 2 and told in said and "\n" not in said.strip()
