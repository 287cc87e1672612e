"""A contest of predictors: progress where asked, a policy among them, and one line for a competitor that fails."""

import numpy as np
import pytest

import waddington_nb as wd


def test_progress_is_shown_only_when_asked(cells, capsys):
    for progress in (False, True):
        wd.leaderboard(cells, {}, group_key="cell_type", hold_out=["NK"], progress=progress)
        assert ("2/2" in capsys.readouterr().err) == progress


def test_a_policy_competes_once_per_seed_and_the_same_seed_gives_the_same_scores(cells):
    policy = lambda task, seed: wd.fit(task, [wd.PPO(steps=2000)], seed, n_latent=8).simulate(task)
    first, again = (
        wd.leaderboard(cells, {"policy": policy}, seeds=[0, 1], group_key="cell_type", hold_out=["NK"])
        for _ in range(2)
    )
    assert first.equals(again)
    values = first.query("method == 'policy' and metric == 'energy_distance'").set_index("seed")["value"]
    assert values.index.tolist() == [0, 1] and values[0] != values[1]
    assert (first.query("method == 'mean_shift'")["seed"] == 0).all()
    ranks = wd.rank_methods(first)
    assert set(ranks["method"]) == {"policy", "no_change", "mean_shift"}


def test_a_report_of_predictions_with_nan_is_refused(cells):
    task = wd.Task(cells, group_key="cell_type", hold_out="NK")
    guess = wd.no_change(task)
    guess.X[0, 0] = np.inf
    with pytest.raises(wd.DataError, match="NaN or infinite"):
        wd.evaluate(task, guess, times=0)
