"""Held-out perturbed cells are the truth: nothing fitted may depend on them."""

from functools import partial

import numpy as np
import pytest

import waddington_nb as wd
from waddington_nb import representations
from waddington_nb.baselines import BASELINES

STAGES = [wd.TRPO(steps=6000), wd.PPO(steps=6000)]


def spoiled(cells, hidden):
    "The same study with noise where the truth was."
    other = cells.copy()
    rows = np.flatnonzero(hidden)
    other.X[rows] = np.random.default_rng(1).poisson(30.0, size=(len(rows), other.n_vars))
    return other


@pytest.mark.parametrize(
    "options",
    [
        {"group_key": "cell_type", "hold_out_group": "NK"},
        {"group_key": "cell_type", "hold_out_fraction": 0.5},
    ],
    ids=["group", "cells"],
)
@pytest.mark.parametrize("representation", ["pca", "autoencoder", "graph"])
def test_truth_changes_nothing_fitted(monkeypatch, tmp_path, cells, options, representation):
    for name in ("fit_graph", "fit_autoencoder"):
        monkeypatch.setattr(representations, name, partial(getattr(representations, name), steps=100))
    options |= {"n_genes": 30}
    task = wd.Task(cells, **options)
    other = wd.Task(spoiled(cells, task.is_truth), **options)
    assert (task.x[task.is_truth] != other.x[other.is_truth]).any()
    assert (task.genes == other.genes).all()
    models = [wd.fit(t, STAGES, seed=0, n_latent=6, representation=representation) for t in (task, other)]
    one, two = (m.save(tmp_path / str(i)) / "model.safetensors" for i, m in enumerate(models))
    assert one.read_bytes() == two.read_bytes()  # everything that was fitted
    assert (models[0].predict(task).X == models[1].predict(other).X).all()
    for baseline in BASELINES.values():
        assert (baseline(task).X == baseline(other).X).all()


def test_scores_do_depend_on_the_truth(cells):
    task = wd.Task(cells, group_key="cell_type", hold_out_group="NK")
    other = wd.Task(spoiled(cells, task.is_truth), group_key="cell_type", hold_out_group="NK")
    scores = [
        wd.evaluate(t, BASELINES["mean_shift"](t), n_bootstrap=0).summary()["value"].to_numpy()
        for t in (task, other)
    ]
    assert (scores[0] != scores[1]).mean() > 0.9


def test_the_users_object_is_not_changed(cells):
    before = cells.copy()
    task = wd.Task(cells, group_key="cell_type", hold_out_group="NK")
    wd.fit(task, STAGES, seed=0, n_latent=6).predict(task)
    assert (cells.X == before.X).all() and cells.obs.equals(before.obs) and not cells.uns and not cells.obsm
