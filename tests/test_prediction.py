"""Predictions without truth, kept models, and what is refused of both."""

import json
import os

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from conftest import QUICK, made_up
from safetensors.numpy import load_file

import waddington_nb as wd
from waddington_nb.core import DataError
from waddington_nb.forecasts import forecast_verdict
from waddington_nb.prediction import load_model

BRIEF = {"stages": [wd.PPO(steps=2000)], "n_latent": 6}
KEYS = ["--perturbation-key", "perturbation", "--control", "control"]


def lacking(group: str = "NK", genes: int = 40) -> ad.AnnData:
    "The made-up study without the perturbed cells of one type."
    cells = made_up(genes=genes)
    return cells[
        ~((cells.obs["cell_type"] == group) & (cells.obs["perturbation"] == "IFNB")).to_numpy()
    ].copy()


def screen(seed: int = 0, genes: int = 30) -> ad.AnnData:
    "Control and four knock-outs of measured genes in two batches, and one pair; 25 cells each."
    rng = np.random.default_rng(seed)
    names = ["control", "gene0", "gene1", "gene2", "gene3", "gene0+gene1"]
    effect = {name: np.zeros(genes) for name in names}
    for i in range(4):
        effect[f"gene{i}"] = rng.normal(0, 0.6, genes)
    effect["gene0+gene1"] = effect["gene0"] + effect["gene1"]
    label, batch = np.tile(np.repeat(names, 25), 2), np.repeat(["b1", "b2"], 25 * len(names))
    rate = rng.gamma(3.0, 2.0, genes) * np.exp(np.array([effect[name] for name in label]))
    obs = pd.DataFrame({"perturbation": label, "batch": batch}, [f"c{i}" for i in range(len(label))])
    return ad.AnnData(
        rng.poisson(rate).astype("float32"),
        obs=obs,
        var=pd.DataFrame(index=[f"gene{i}" for i in range(genes)]),
    )


@pytest.fixture(scope="module")
def model():
    return wd.fit(wd.Task(lacking(), group_key="cell_type"), seed=0, **BRIEF)


def test_what_is_missing_is_predicted_as_if_it_were_held_out(model):
    "The same cells to 1e-6, although the perturbed cells are not in the file."
    held_out = wd.Task(made_up(), group_key="cell_type", hold_out_group="NK")
    scored = wd.fit(held_out, seed=0, **BRIEF).predict(held_out)
    free = model.predict(wd.Task(lacking(), group_key="cell_type"))
    assert set(free.obs_names) == set(scored.obs_names)
    assert np.abs(free[scored.obs_names, scored.var_names].X - scored.X).max() < 1e-6


def test_loaded_predictions_are_equal_to_the_byte(model, tmp_path):
    new = made_up(seed=3)[:60].copy()
    loaded = load_model(model.save(tmp_path / "model"))
    one, two = (m.predict(new, "IFNB", group_key="cell_type") for m in (model, loaded))
    assert one.X.tobytes() == two.X.tobytes()
    assert one.obsm["waddington_path"].tobytes() == two.obsm["waddington_path"].tobytes()
    again = load_model(loaded.save(tmp_path / "again"))
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == (
        tmp_path / "again" / "model.safetensors"
    ).read_bytes()
    assert again.predict(new, "IFNB").n_obs == 60


@pytest.mark.parametrize("representation", ["pca", "autoencoder", "graph"])
def test_a_kept_model_holds_no_cell(tmp_path, representation):
    "No name of a cell, no array with a row per training cell, no absolute path."
    cells = lacking(genes=37)  # a number that no set of cells has
    task = wd.Task(cells, group_key="cell_type")
    options = BRIEF | {"representation": representation, "stages": []}
    folder = wd.fit(task, seed=0, **options).save(tmp_path / "model")
    text = (folder / "model.json").read_text()
    assert (
        not any(name in text for name in cells.obs_names)
        and str(tmp_path) not in text
        and os.sep + "home" not in text
    )
    counts = {len(cells), *cells.obs.groupby(["cell_type", "perturbation"], observed=True).size()}
    for name, array in load_file(folder / "model.safetensors").items():
        assert not counts & set(array.shape), f"{name} has shape {array.shape}"


def test_every_kind_of_question(tmp_path):
    "One fit answers new cells, groups, pairs, unmeasured knock-outs, and both."
    cells = screen()
    cells = cells[~((cells.obs["batch"] == "b2") & (cells.obs["perturbation"] == "gene3")).to_numpy()].copy()
    task = wd.Task(cells, group_key="batch")
    model = wd.fit(task, seed=0, stages=[], n_latent=5)
    controls = cells[(cells.obs["perturbation"] == "control").to_numpy()].copy()
    asked = {"gene0": "cells", "gene3": "group", "gene2+gene3": "combination", "gene9": "perturbation"}
    for name, question in asked.items():
        found = model.predict(controls[controls.obs["batch"] == "b2"].copy(), name, group_key="batch")
        assert found.uns["waddington_questions"]["question"].tolist() == [question], name
        assert np.isfinite(found.X).all()
    assert model.predict(controls, "gene9").uns["waddington_questions"]["question"].tolist() == ["both"]
    assert set(model.evidence["question"]) <= set(model.answers)
    kept = load_model(model.save(tmp_path / "m")).predict(controls, "gene1+gene0")
    assert kept.obs["perturbation"].unique().tolist() == ["gene0+gene1"]  # components have no order


@pytest.mark.parametrize(
    "said, ask",
    [
        ("such as", lambda m: m.predict(ad.AnnData(np.ones((3, 2), "float32")), "IFNB")),
        ("were fitted on|was fitted on", lambda m: m.predict(_logged(), "IFNB")),
        ("did you mean 'IFNB'", lambda m: m.predict(made_up(), "IFNb1")),
        ("give a perturbation", lambda m: m.predict(made_up())),
        ("is not a column", lambda m: m.predict(made_up(), "IFNB", group_key="celltype")),
        ("belong together", lambda m: m.predict(made_up(), "IFNB", control="control")),
    ],
)
def test_bad_requests_get_one_line(model, said, ask):
    with pytest.raises(DataError, match=said) as error:
        ask(model)
    assert "\n" not in str(error.value)


def _logged() -> ad.AnnData:
    cells = made_up()
    cells.X = np.log1p(cells.X / 3)
    return cells


def _edit(folder, change):
    header = json.loads((folder / "model.json").read_text())
    change(header)
    (folder / "model.json").write_text(json.dumps(header))


@pytest.mark.parametrize(
    "said, damage",
    [
        ("holds no model.json", lambda f: (f / "model.json").unlink()),
        ("incomplete or was edited", lambda f: (f / "model.safetensors").unlink()),
        ("incomplete or was edited", lambda f: os.truncate(f / "model.safetensors", 900)),
        ("is damaged", lambda f: os.truncate(f / "model.json", 40)),
        ("incomplete or was edited", lambda f: _edit(f, lambda h: h.update(seed=7))),
        ("model format 99", lambda f: _edit(f, lambda h: h.update(format_version=99))),
        ("a Forest, not a Model", lambda f: _edit(f, lambda h: h.update(kind="Forest"))),
    ],
)
def test_damaged_models_get_one_line(model, tmp_path, said, damage):
    folder = model.save(tmp_path / "model")
    damage(folder)
    with pytest.raises(DataError, match=said) as error:
        load_model(folder)
    assert "\n" not in str(error.value)


def test_predict_and_its_files(waddington, tmp_path):
    lacking().write_h5ad(tmp_path / "cells.h5ad")
    out = tmp_path / "out"
    code, said = waddington(
        "predict", tmp_path / "cells.h5ad", *KEYS, "--group-key", "cell_type", *QUICK, "--out", out
    )
    assert code == 0, said
    assert {"report.html", "predicted.h5ad", "genes.csv", "evidence.csv", "model", "config.json"} <= {
        p.name for p in out.iterdir()
    }
    genes, evidence = pd.read_csv(out / "genes.csv"), pd.read_csv(out / "evidence.csv")
    assert list(genes) == ["group", "perturbation", "gene", "control", "predicted", "low", "high"]
    assert {"metric", "value", "null", "ceiling"} <= set(evidence) and set(genes["group"]) == {"NK"}
    assert "http" not in (out / "report.html").read_text()
    made_up(seed=3)[:40].copy().write_h5ad(tmp_path / "new.h5ad")
    asked = ["--model", out / "model", tmp_path / "new.h5ad", "--perturbation", "IFNB"]
    code, said = waddington("predict", *asked, "--out", tmp_path / "new")
    assert code == 0 and ad.read_h5ad(tmp_path / "new" / "predicted.h5ad").n_obs == 40, said


@pytest.mark.parametrize(
    "said, options",
    [
        ("has no control cells", ["--for", "B cell"]),
        ("nothing is missing", ["--for", "B"]),
        ("predict needs --perturbation-key", None),
    ],
)
def test_predict_refuses_in_one_line(waddington, tmp_path, said, options):
    lacking().write_h5ad(tmp_path / "cells.h5ad")
    keys = [] if options is None else [*KEYS, "--group-key", "cell_type", *options]
    code, line = waddington("predict", tmp_path / "cells.h5ad", *keys, "--out", tmp_path / "out")
    assert code == 2 and said in line and len(line.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_of_an_earlier_version_is_named(tmp_path):
    (tmp_path / "policy.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match="version 0.1"):
        load_model(tmp_path)


def test_one_training_group_is_no_evidence():
    cells = lacking()
    cells = cells[cells.obs["cell_type"] != "T"].copy()
    task = wd.Task(cells, group_key="cell_type")
    one = wd.fit(task, seed=0, stages=[], n_latent=6)
    predicted = one.predict(task)
    assert "do not rely on it" in forecast_verdict(one, predicted)
    assert predicted.uns["waddington_questions"]["unlikeness"].isna().all() and np.isfinite(predicted.X).all()


def test_controls_from_another_world_are_told_by_a_number(model):
    other = made_up(seed=5)
    other = other[other.obs["perturbation"] == "control"].copy()
    rate = np.where(np.arange(other.n_vars) < 3, 1000.0, 0.05)  # three genes are all there is
    other.X = np.random.default_rng(0).poisson(rate, other.shape).astype("float32")
    cells = model.predict(other, "IFNB")
    assert cells.uns["waddington_questions"]["unlikeness"].item() > 2
    assert "unlike those of every training group" in forecast_verdict(model, cells)


def test_a_perturbation_of_few_cells_teaches_little_and_breaks_nothing():
    cells = made_up()
    treated = np.flatnonzero((cells.obs["cell_type"] == "T") & (cells.obs["perturbation"] == "IFNB"))
    cells = cells[np.setdiff1d(np.arange(cells.n_obs), treated[4:])].copy()
    task = wd.Task(cells, group_key="cell_type", hold_out_group="NK", min_cells=3)
    predicted = wd.fit(task, seed=0, stages=[], n_latent=6).predict(task)
    assert np.isfinite(predicted.X).all() and (predicted.X >= 0).all()
