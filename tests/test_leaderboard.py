"""A contest of predictors: progress where asked, a policy among them, and one line for a competitor that fails."""

import numpy as np
import pytest

import waddington_nb as wd


def test_progress_is_shown_only_when_asked(cells, capsys):
    for progress in (False, True):
        wd.leaderboard(cells, {}, group_key="cell_type", units=["NK"], progress=progress)
        assert ("2/2" in capsys.readouterr().err) == progress


def test_a_policy_competes_once_per_seed_and_the_same_seed_gives_the_same_scores(cells):
    policy = lambda task, seed: wd.fit(task, [wd.PPO(steps=2000)], seed, n_latent=8).predict(task)
    first, again = (
        wd.leaderboard(cells, {"policy": policy}, seeds=[0, 1], group_key="cell_type", units=["NK"])
        for _ in range(2)
    )
    assert first.equals(again)
    values = first.query("method == 'policy' and metric == 'energy_distance'").set_index("seed")["value"]
    assert values.index.tolist() == [0, 1] and values[0] != values[1]
    assert (first.query("method == 'mean_shift'")["seed"] == 0).all()
    ranks = wd.rank_methods(first)
    assert set(ranks["method"]) == {"policy", "no_change", "mean_shift"}


def test_a_report_of_predictions_with_nan_is_refused(cells):
    task = wd.Task(cells, group_key="cell_type", hold_out_group="NK")
    guess = wd.no_change(task)
    guess.X[0, 0] = np.inf
    with pytest.raises(wd.DataError, match="NaN or infinite"):
        wd.evaluate(task, guess, n_bootstrap=0)


def test_a_unit_without_a_task_does_not_end_the_contest(cells):
    "Control cells of NK without any expression are seen only when its task is made."
    empty = (cells.obs["cell_type"] == "NK") & (cells.obs["perturbation"] == "control")
    cells.X[np.flatnonzero(empty)[9:]] = 0
    scores = wd.leaderboard(cells, {}, group_key="cell_type")
    assert set(scores["held_out"]) == {"B", "T"} and scores.attrs["set_aside"] == ["NK"]
    with pytest.raises(wd.DataError, match="perturbation 'IFNX' is not in"):
        wd.leaderboard(cells, {}, group_key="cell_type", perturbation="IFNX")
    with pytest.raises(wd.DataError, match="too few cells in one of its arms"):
        wd.leaderboard(cells, {}, group_key="cell_type", units=["NK"])


def test_control_may_be_a_number(cells):
    cells.obs["perturbation"] = (cells.obs["perturbation"] != "control").astype(int)
    cells.obs["dose"] = np.arange(cells.n_obs) // 2 % 2 + 1
    keys = {"group_key": "cell_type", "control": 0}
    scores = wd.leaderboard(cells, {}, over="perturbation", dose_key="dose", units=["1@2"], **keys)
    assert set(scores["perturbation"]) == {"1@2"}
    assert set(wd.leaderboard(cells, {}, units=["NK"], **keys)["perturbation"]) == {"1"}
