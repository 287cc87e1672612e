"""One small planted defect each, found by exactly its check; nothing found in ten clean worlds."""

from dataclasses import replace

import gymnasium
import numpy as np
import pandas as pd
import pytest
import torch

import waddington_nb as wd
from waddington_nb.audits import audit
from waddington_nb.core import DataError
from waddington_nb.landscapes import ControlProblem, Push, gata1_pu1
from waddington_nb.metrics import energy_distance, mse
from waddington_nb.testbeds import LandscapeWorld, ScreenWorld, example_network, example_screen
from waddington_nb.training import PPO, TRPO, agent_for, train
from waddington_nb.trajectories import dtw, population_distances
from waddington_nb.worlds import StateWorld, VectorWorld, WorldEnv, example_world

STEPS = 12_000


class Plane(StateWorld):
    "Cells go to (1, 0) in three noisy steps. A subclass plants a defect."

    observation_size = action_size = 2
    goal = torch.tensor([1.0, 0.0])

    def __init__(self, horizon: int = 3):
        self.horizon = horizon

    def start(self, cells, generator):
        return torch.randn(cells, 2, generator=generator)

    def moved(self, state, action):
        noise = 0.05 * torch.randn(state.shape, generator=self.generator)
        return state + 0.5 * action.clamp(-1, 1) + noise

    def advance(self, state, action):
        after = self.moved(state, action)
        return after, -(after - self.goal).square().sum(dim=-1)


class Film(Plane):
    "The action is ignored."

    def moved(self, state, action):
        return super().moved(state, 0 * action)


class FilmWithCosts(Film):
    "The action costs something, and is ignored."

    def advance(self, state, action):
        after, reward = super().advance(state, action)
        return after, reward - 0.01 * action.square().sum(dim=-1)


class Secret(Plane):
    "The target is another random cell, which the agent does not see."

    def start(self, cells, generator):
        self.goal = 2 * torch.randn(cells, 2, generator=generator)
        return torch.randn(cells, 2, generator=generator)


class NamedSecret(Secret):
    "The same, with an attribute that tells the audit."

    @property
    def target(self):
        return self.goal


class Told(Secret):
    "The same target, shown to the agent: no defect."

    observation_size = 4

    def observe(self, state):
        return torch.cat([state, self.goal], dim=1)


class Lazy(Plane):
    "Scored by how near to its own start a cell stays."

    def advance(self, state, action):
        after = self.moved(state, action)
        return after, -(after - state).square().sum(dim=-1)


class Shift(Plane):
    "Every cell earns the same for the same action: a constant is as good as any policy."

    def advance(self, state, action):
        after = self.moved(state, action)
        return after, (after - state)[:, 0] - (after - state)[:, 1].abs()


class Elsewhere(Plane):
    "The test aims at another place."

    goal = torch.tensor([-1.0, 0.5])


class FromRows(Plane):
    "Episodes begin in given cells."

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def start(self, cells, generator):
        return self.rows[torch.randint(len(self.rows), (cells,), generator=generator)]


class Walk(gymnasium.Env):
    "One cell that walks to the origin, as other people write environments."

    observation_space = gymnasium.spaces.Box(-10, 10, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.steps = self.np_random.normal(size=2).astype(np.float32), 0
        return self.at, {}

    def step(self, action):
        self.at, self.steps = np.clip(self.at + 0.4 * action, -10, 10).astype(np.float32), self.steps + 1
        return self.at, -float(np.square(self.at).sum()), self.steps == 4, False, {}


class DeafWalk(Walk):
    "The same, deaf."

    def step(self, action):
        return super().step(0 * action)


def found(result) -> set[str]:
    return set(result.defects["check"])


@pytest.mark.parametrize(
    "world, check",
    [
        (Film(), "action"),
        (FilmWithCosts(), "action"),
        (Secret(), "sight"),
        (NamedSecret(), "sight"),
        (Lazy(), "nulls"),
        (Shift(), "nulls"),
    ],
    ids=lambda part: part if isinstance(part, str) else type(part).__name__,
)
def test_planted_in_the_world(world, check):
    assert found(audit(world, steps=STEPS)) == {check}


def test_planted_in_a_gymnasium_environment():
    assert found(audit(DeafWalk(), horizon=4, steps=STEPS)) == {"action"}
    with pytest.raises(DataError, match="horizon"):
        audit(DeafWalk())


def test_other_target_in_the_test():
    result = audit(Plane(), test=Elsewhere(), steps=STEPS)
    assert found(result) == {"targets"}
    states, effects = torch.randn(200, 3), torch.randn(5, 3)
    screens = [
        ScreenWorld(states[k * 100 : k * 100 + 100], torch.full((3,), 1.0 - 2 * k), effects) for k in (0, 1)
    ]
    result = audit(screens[0], test=screens[1], steps=STEPS).set_index("check")
    assert result.loc["targets", "severity"] == "defect" and result.loc["targets", "number"] > 1
    assert result.loc["leakage", "severity"] == "ok"


def test_shared_start_cells():
    rows = torch.randn(500, 2)
    assert found(audit(FromRows(rows[:300]), test=FromRows(rows[250:]), steps=STEPS)) == {"leakage"}
    assert found(audit(FromRows(rows[:250]), test=FromRows(rows[250:]), steps=STEPS)) == set()


OBS = pd.DataFrame(
    {"cell_type": np.repeat(["B", "NK", "T"], 20), "perturbation": ["control", "IFNB"] * 30},
    index=[f"cell{i}" for i in range(60)],
)


@pytest.mark.parametrize(
    "train, test, keys, leaks",
    [
        (OBS[:40], OBS[40:], ["cell_type"], False),
        (OBS[:41], OBS[40:], [], True),
        (OBS[:45], OBS[45:], ["cell_type"], True),
        (OBS[:40], OBS[40:], ["perturbation"], True),
        (OBS[:40], OBS[40:][OBS.perturbation[40:] == "control"], ["perturbation"], False),
    ],
)
def test_shared_cells_and_labels(train, test, keys, leaks):
    result = audit(train_obs=train, test_obs=test, held_out=keys, control="control")
    assert found(result) == ({"leakage"} if leaks else set())
    assert set(result.query("severity == 'not checked'")["check"]) >= {"action", "sight", "nulls", "encoder"}


def test_untrained_encoder():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(300, 12)) @ rng.normal(size=(12, 50)) + 0.3 * rng.normal(size=(300, 50))).astype(
        np.float32
    )
    torch.manual_seed(1)
    encoder = torch.nn.Sequential(torch.nn.Linear(50, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    assert found(audit(encoder=encoder, x=x)) == {"encoder"}
    random = lambda seed: lambda x: x @ np.random.default_rng(seed).normal(size=(50, 4))
    assert found(audit(encoder=random(9), fresh=random, x=x)) == {"encoder"}
    axes = np.linalg.svd(x - x.mean(0), full_matrices=False)[2][:4]
    assert found(audit(encoder=lambda x: x @ axes.T, fresh=random, x=x)) == set()


@pytest.mark.parametrize(
    "metric, lower, severity",
    [
        (lambda start, final, truth: np.square(final - start).mean(), True, "defect"),
        (lambda start, final, truth: np.corrcoef(start.ravel(), final.ravel())[0, 1], False, "defect"),
        (lambda start, final, truth: 0.0, True, "defect"),
        (lambda start, final, truth: energy_distance(final, truth), False, "defect"),  # the wrong way round
        (lambda start, final, truth: energy_distance(final, truth), True, "ok"),
        (lambda start, final, truth: float(mse(final.mean(0), truth.mean(0))), True, "note"),
    ],
)
def test_metric(metric, lower, severity):
    rng = np.random.default_rng(0)
    start, truth = rng.normal(size=(90, 5)), rng.normal(size=(70, 5)) * 0.8 + np.arange(5)
    result = audit(metric=metric, start=start, truth=truth, lower_is_better=lower).set_index("check")
    assert result.loc["metric", "severity"] == severity
    assert (result.drop("metric")["severity"] == "not checked").all()


def test_row_number_as_pseudotime():
    x = np.random.default_rng(0).normal(size=(200, 5))
    assert found(audit(pseudotime=np.linspace(0, 1, 200), x=x)) == {"pseudotime"}
    assert found(audit(pseudotime=np.argsort(x[:, 0]).argsort() / 200, x=x)) == set()


def test_stage_that_stops_at_once():
    world = Plane()
    for target, stops in ((0.02, False), (0.0, True)):
        stages = [TRPO(steps=6000), PPO(steps=12_000, target_kl=target, batch_size=64)]
        history = train(world, agent_for(world, 0), stages, seed=0, n_envs=512)
        assert found(audit(history=history)) == ({"history"} if stops else set())


def test_single_seed_no_interval_or_no_null():
    table = pd.DataFrame({"method": ["PPO", "TRPO"] * 3, "seed": [0, 0, 1, 1, 2, 2]})
    assert found(audit(results=table)) == {"results"}
    null = pd.DataFrame({"method": ["no-op"], "seed": [0]})
    assert found(audit(results=pd.concat([table, null]))) == set()
    one = audit(results=pd.concat([table[:2], null])).set_index("check").loc["results"]
    assert one["severity"] == "defect" and "no interval" in one["meaning"] and one["number"] == 1
    noise = pd.DataFrame({"method": ["random"] * 3, "seed": [0, 1, 2]})  # no row of what costs nothing
    assert found(audit(results=pd.concat([table, noise]))) == {"results"}


@pytest.mark.parametrize(
    "distance, blind",
    [
        (
            lambda a, b: np.mean(
                [dtw(x[:, None], y[:, None]) for x, y in zip(a.mean(0).T, b.mean(0).T, strict=True)]
            ),
            True,
        ),
        (lambda a, b: dtw(a.mean(0), b.mean(0)), True),  # the mean, all dimensions together
        (
            lambda a, b: np.mean(
                [dtw(x[:, [k]], y[:, [k]]) for x, y in zip(a, b, strict=True) for k in (0, 1)]
            ),
            True,
        ),
        (lambda a, b: 0.0, True),
        (lambda a, b: np.mean([dtw(x, y) for x, y in zip(a, b, strict=True)]), False),
        (lambda a, b: np.diag(population_distances(a.swapaxes(0, 1), b.swapaxes(0, 1))).mean(), False),
    ],
    ids=["published", "mean", "dimensions", "nothing", "paths", "populations"],
)
def test_trajectory_distances(distance, blind):
    assert found(audit(trajectory=distance)) == ({"trajectory"} if blind else set())


def test_convex_is_a_note():
    result = audit(Plane(horizon=1), steps=STEPS).set_index("check")
    assert (result["severity"] != "defect").all()
    assert result.loc["convexity", "severity"] == "note"


def carts(name: str) -> VectorWorld:
    return VectorWorld(gymnasium.make_vec(name, num_envs=8, vectorization_mode="sync"))


def landscape() -> LandscapeWorld:
    "GATA1 and PU.1, from undecided cells to one of the fates; cells begin far enough apart to need different pushes."
    switch = replace(gata1_pu1(), control=Push(2.0))
    return LandscapeWorld(ControlProblem(switch, (1.0, 1.0), (1.996078, 0.003922), spread=0.6, horizon=20))


@pytest.mark.parametrize(
    "make, steps",  # an environment is stepped cell by cell
    [
        (lambda: example_world(), 30_000),
        (lambda: example_world(seed=1), 30_000),
        (lambda: WorldEnv(example_world()), 6000),
        (lambda: example_screen()[0], 15_000),
        (lambda: example_screen(horizon=15)[0], 30_000),
        (lambda: landscape(), STEPS),
        (lambda: example_network(), 30_000),
        (lambda: carts("CartPole-v1"), 30_000),
        (lambda: Told(), 30_000),
        (lambda: FromRows(torch.randn(300, 2, generator=torch.Generator().manual_seed(0))), STEPS),
    ],
    ids=[
        "transport", "transport-1", "transport-env", "screen", "screen-15", "landscape", "network", "cartpole", "told", "rows",
    ],
)  # fmt: skip
def test_ten_clean_worlds(make, steps):
    world = make()
    result = wd.audit(world, steps=steps)
    assert found(result) == set(), result
    assert result["severity"].isin(["ok", "note", "not checked"]).all()


def test_worlds_and_their_tests_are_clean():
    result = wd.audit(*example_screen()[:1], test=example_screen()[1], steps=STEPS)
    assert found(result) == set() and set(result.query("severity == 'note'")["check"]) == {"convexity"}


def test_same_seed_same_audit():
    one, two = (audit(Plane(), steps=6000, seed=3) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)
