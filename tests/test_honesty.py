"""Moving cells for nothing must cost; doing nothing must not win; the truth must be the best there is."""

import numpy as np
import torch

import waddington_nb as wd
from waddington_nb.baselines import as_prediction, no_change


def task_of(cells):
    return wd.Task(cells, group_key="cell_type", hold_out="NK")


def policy_scores(task, prediction):
    table = wd.evaluate(task, prediction, times=0).summary()
    return table[table["method"] == "policy"].set_index(["metric", "genes"])


def scaled_policy(task, scale: float):
    "An untrained policy whose every step is a random direction times `scale`, the same for all cells."
    model = wd.fit(task, [], seed=0, n_latent=8, init="random")
    last = model.agent.policy.network[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(
            scale * torch.sign(torch.randn(len(last.bias), generator=torch.Generator().manual_seed(0)))
        )
    return model.simulate(task)


def test_the_farther_cells_move_for_nothing_the_worse(cells):
    task = task_of(cells)
    energies = [
        policy_scores(task, scaled_policy(task, scale)).loc[("energy_distance", "all")]
        for scale in (0.0, 0.5, 1.0)
    ]
    values = [row["value"] for row in energies]
    assert values == sorted(values) and len(set(values)) == 3
    assert all(row["value"] > row["ceiling"] for row in energies)


def test_doing_nothing_scores_as_the_no_change_baseline(cells):
    task = task_of(cells)
    still = scaled_policy(task, 0.0)
    assert (still.X == still.layers["control"]).all()
    assert policy_scores(task, still).loc[("pearson_delta", "all"), "value"] == 0


def test_the_truth_itself_beats_every_null(cells):
    task = task_of(cells)
    g, p = task.test_conditions[0]
    real, start = task.x[task.cells(g, p, "truth")], task.cells(g, task.control, "start")
    perfect = as_prediction(task, {(g, p): np.resize(real, (len(start), real.shape[1]))})
    scores = policy_scores(task, perfect)
    assert scores.loc[("pearson_delta", "all"), "value"] > 0.99
    assert scores.loc[("energy_distance", "all"), "value"] < scores.loc[("energy_distance", "all"), "null"]


def test_a_trained_policy_beats_both_nulls_where_cells_differ():
    task = wd.Task(wd.haematopoiesis(seed=1), group_key="donor", hold_out="donor 3")
    model = wd.fit(task, [wd.TRPO(steps=50_000), wd.PPO(steps=50_000)], seed=0, n_latent=10)
    scores = policy_scores(task, model.simulate(task))
    energy, delta = scores.loc[("energy_distance", "all")], scores.loc[("pearson_delta", "all")]
    assert energy["value"] < energy["null"] and delta["value"] > delta["null"]


def test_reinforcement_improves_on_the_predictor_it_starts_from():
    task = wd.Task(wd.haematopoiesis(seed=1), group_key="donor", hold_out="donor 3")
    start, trained = (
        policy_scores(task, wd.fit(task, stages, seed=0, n_latent=10).simulate(task)).loc[
            ("energy_distance", "all"), "value"
        ]
        for stages in ([], [wd.TRPO(), wd.PPO()])
    )
    assert trained < start


def test_no_change_of_an_unknown_gene_set_is_refused(cells):
    task = task_of(cells)
    wrong = no_change(task)[:, :5].copy()
    try:
        wd.evaluate(task, wrong)
    except wd.DataError as error:
        assert "genes" in str(error)
    else:
        raise AssertionError("other genes must be refused")
