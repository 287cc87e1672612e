"""Moving cells for nothing must cost; doing nothing must not win; the truth must be the best there is."""

from dataclasses import replace

import numpy as np
import torch

import waddington_nb as wd
from waddington_nb.baselines import no_change
from waddington_nb.prediction import as_prediction


def task_of(cells):
    return wd.Task(cells, group_key="cell_type", hold_out_group="NK")


def policy_scores(task, prediction):
    table = wd.evaluate(task, prediction, n_bootstrap=0).summary()
    return table[table["method"] == "policy"].set_index(["metric", "genes"])


def scaled_policy(task, scale: float):
    "A policy whose every step is `scale` against all directions in which training cells responded."
    model = wd.fit(task, [wd.PPO(steps=500)], seed=0, n_latent=8, init="random")
    ((question, answer),) = model.answers.items()
    policy = answer.guide.policy
    with torch.no_grad():
        policy.skip.weight.zero_()
        policy.network[-1].weight.zero_()
        policy.network[-1].bias.fill_(-scale)
    followed = replace(answer, fallback="model", guide=replace(answer.guide, policy_weight=1.0))
    return replace(model, answers={question: followed}).predict(task)


def worse_and_worse(task, predictions):
    "Whether each prediction has a larger energy distance than the one before it, all above the ceiling."
    energies = [policy_scores(task, guess).loc[("energy_distance", "all")] for guess in predictions]
    values = [row["value"] for row in energies]
    assert values == sorted(values) and len(set(values)) == len(values), values
    assert all(row["value"] > row["ceiling"] for row in energies)


def test_the_farther_a_policy_goes_the_wrong_way_the_worse(cells):
    task = task_of(cells)
    worse_and_worse(task, [scaled_policy(task, scale) for scale in (0.0, 0.5, 1.0)])


def test_the_farther_cells_move_for_nothing_the_worse(cells):
    task = task_of(cells)
    still = no_change(task)
    drift = np.abs(np.random.default_rng(0).normal(size=still.n_vars)).astype(np.float32)
    drift[:10] = 0  # not along the genes that respond
    moved = [still.copy() for _ in range(3)]
    for scale, guess in zip((0.0, 0.3, 0.6), moved, strict=True):
        guess.X = guess.X + scale * drift
    worse_and_worse(task, moved)


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
    task = wd.Task(wd.haematopoiesis(seed=1), group_key="donor", hold_out_group="donor 3")
    model = wd.fit(task, [wd.TRPO(steps=50_000), wd.PPO(steps=50_000)], seed=0, n_latent=10)
    scores = policy_scores(task, model.predict(task))
    energy, delta = scores.loc[("energy_distance", "all")], scores.loc[("pearson_delta", "all")]
    assert energy["value"] < energy["null"] and delta["value"] > delta["null"]


def energy_after(task, *stages, **options) -> float:
    model = wd.fit(task, *stages, seed=0, n_latent=10, **options)
    return policy_scores(task, model.predict(task)).loc[("energy_distance", "all"), "value"]


def test_reinforcement_does_not_spoil_the_predictor_it_starts_from():
    task = wd.Task(wd.haematopoiesis(seed=1), group_key="donor", hold_out_group="donor 3")
    assert energy_after(task) <= 1.02 * energy_after(task, [])


def test_reinforcement_learns_from_nothing():
    task = wd.Task(wd.haematopoiesis(seed=1), group_key="donor", hold_out_group="donor 3")
    nothing = policy_scores(task, no_change(task)).loc[("energy_distance", "all"), "value"]
    learned = energy_after(
        task, [wd.TRPO(steps=20_000), wd.PPO(steps=40_000)], init="random"
    )  # from nothing it takes longer
    shifted = (
        wd.evaluate(task, wd.mean_shift(task), n_bootstrap=0)
        .summary()
        .set_index(["method", "metric", "genes"])
    )
    assert learned < shifted.loc[("policy", "energy_distance", "all"), "value"] < 0.5 * nothing


def test_no_change_of_an_unknown_gene_set_is_refused(cells):
    task = task_of(cells)
    wrong = no_change(task)[:, :5].copy()
    try:
        wd.evaluate(task, wrong)
    except wd.DataError as error:
        assert "genes" in str(error)
    else:
        raise AssertionError("other genes must be refused")
