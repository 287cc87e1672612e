"""What other people's environments hand over: right, or one clear line."""

import pickle
import threading
import warnings

import gymnasium
import numpy as np
import pandas as pd
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from waddington_nb import paper
from waddington_nb.audits import audit
from waddington_nb.core import DataError
from waddington_nb.landscapes import PROBLEMS
from waddington_nb.policies import Policy
from waddington_nb.rollouts import collect, mean_return
from waddington_nb.testbeds import LandscapeWorld, example_network, example_screen
from waddington_nb.training import PPO, TRPO, SB3Model, agent_for, train
from waddington_nb.worlds import (
    Restart,
    StateWorld,
    VectorWorld,
    WorldEnv,
    drawn_from,
    example_world,
    to_space,
)

Box, Discrete = gymnasium.spaces.Box, gymnasium.spaces.Discrete


class Walk(gymnasium.Env):
    "Pays 1 a step; environment k ends after `lengths[k]` steps. Shows the number of steps so far."

    observation_space, action_space = Box(-np.inf, np.inf, (1,)), Box(-1, 1, (1,))

    def __init__(self, length: int = 30, scale: float = 1.0):
        self.length, self.scale = length, scale

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.array([0.0], np.float32), {}

    def step(self, action):
        self.time += 1
        return np.array([self.time], np.float32), self.scale, self.time >= self.length, False, {}


def walks(*lengths, mode=AutoresetMode.NEXT_STEP, **options) -> SyncVectorEnv:
    return SyncVectorEnv([lambda n=n: Walk(n) for n in lengths], autoreset_mode=mode, **options)


def batch_of(world, n_envs: int, steps: int):
    agent = agent_for(world, 0)
    return collect(world, agent.policy, agent.value, n_envs, steps, torch.Generator().manual_seed(0))


# Returns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_returns_are_those_of_whole_episodes(mode):
    "Episodes of 30 steps in a batch of 59: the 29 steps of the second, unfinished ones do not count."
    world = VectorWorld(walks(30, 30, mode=mode), horizon=59)
    policy = agent_for(world, 0).policy
    assert mean_return(world, policy, 2, seed=0) == 30 and batch_of(world, 2, 59).mean_return == 30
    mixed = VectorWorld(
        walks(3, 50, mode=mode), horizon=50
    )  # short episodes come often, but are no more likely
    assert mean_return(mixed, policy, 2, seed=0) == (3 + 50) / 2


def test_history_is_of_whole_episodes():
    world = VectorWorld(walks(10, 30), horizon=59)
    history = train(world, agent_for(world, 0), [PPO(steps=118)], seed=0, n_envs=2)
    assert history["return"].tolist() == [20.0]


def test_mean_return_is_that_of_evaluate_policy():
    "The same policy, environments and seeds as Stable-Baselines3's judge: the same number."
    sb3 = pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.evaluation import evaluate_policy

    world = VectorWorld(gymnasium.make_vec("CartPole-v1", num_envs=8, vectorization_mode="sync"))
    agent = agent_for(world, 0)
    train(world, agent, [PPO(steps=8000, learning_rate=1e-3)], seed=0, n_envs=8)
    ours = mean_return(world, agent.policy, 8, seed=5)
    theirs = sb3.common.vec_env.DummyVecEnv([lambda: gymnasium.make("CartPole-v1")] * 8)
    theirs.seed(int(torch.randint(2**31, (1,), generator=torch.Generator().manual_seed(5))))
    model = SB3Model(agent.policy, theirs.action_space, theirs.observation_space)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a Monitor
        assert ours == evaluate_policy(model, theirs, n_eval_episodes=8)[0]


# Memory shared with others ---------------------------------------------------------------------------------------


def test_buffers_that_are_used_again():
    "With `copy=False` a vector environment hands out one buffer; the batch is the same to the bit."
    batches = []
    for copied in (True, False):
        envs = gymnasium.make_vec(
            "Pendulum-v1", num_envs=4, vectorization_mode="sync", vector_kwargs={"copy": copied}
        )
        batches.append(batch_of(VectorWorld(envs), 4, 50))
    assert len(batches[1].observation.unique(dim=0)) == 200
    for name in ("observation", "action", "advantage", "target"):
        assert torch.equal(getattr(batches[0], name), getattr(batches[1], name))


class InPlace(StateWorld):
    "Writes the next state into the tensor it has shown."

    observation_size, action_size, horizon = 1, 1, 4

    def start(self, cells, generator):
        return torch.zeros(cells, 1)

    def advance(self, state, action):
        return state.add_(1), action[:, 0]


def test_worlds_that_write_in_place():
    assert batch_of(InPlace(), 2, 4).observation.flatten().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    env = WorldEnv(InPlace())
    first, _ = env.reset(seed=0)
    after = [env.step(np.zeros(1))[0] for _ in range(2)]
    assert [first.item(), *(x.item() for x in after)] == [0, 1, 2]


class Greedy(Walk):
    "Changes the action that it is given."

    def step(self, action):
        action *= 0
        return super().step(action)


def test_actions_are_copied_too():
    class Choices(Greedy):
        action_space = Discrete(5)

        def step(self, action):
            return Walk.step(self, action)

    class Envs(SyncVectorEnv):
        def step(self, actions):
            found = super().step(actions)
            actions *= 0
            return found

    world = VectorWorld(Envs([Choices] * 2), horizon=20)
    assert batch_of(world, 2, 20).action.unique().numel() > 1
    action = np.ones(2, np.float32)
    WorldEnv(example_world()).reset(seed=0)
    env = WorldEnv(InPlace())
    env.reset(seed=0)
    env.step(action[:1])
    assert (action == 1).all()


# Several environments of one world -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [example_world, lambda: example_screen()[0], example_network, lambda: LandscapeWorld(PROBLEMS["trap"]())],
)
def test_environments_of_one_world_have_states_of_their_own(make):
    world = make()
    alone = WorldEnv(world)
    together = [WorldEnv(world) for _ in range(4)]
    actions = [alone.action_space.sample() for _ in range(world.horizon)]
    runs = []
    for envs in ([alone], together):
        first = [env.reset(seed=k)[0] for k, env in enumerate(envs)]
        steps = [[env.step(action) for env in envs] for action in actions]
        assert [[s[2] for s in row] for row in steps] == [[False] * len(envs)] * (world.horizon - 1) + [
            [True] * len(envs)
        ]
        runs.append([first[0], *(row[0][0] for row in steps)])
    assert np.array_equal(runs[0], runs[1])


def test_make_vec_env_over_one_world():
    pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.env_util import make_vec_env

    world = example_world()
    envs = make_vec_env(lambda: WorldEnv(world), n_envs=4, seed=0)
    envs.reset()
    lengths = []
    for _ in range(20):
        *_, infos = envs.step(np.zeros((4, 2), np.float32))
        lengths += [info["episode"]["l"] for info in infos if "episode" in info]
    assert lengths == [world.horizon] * 16


def test_a_world_that_cannot_be_copied():
    world = example_world()
    world.lock = threading.Lock()
    with pytest.raises(DataError, match="PopulationWorld cannot be copied .* give WorldEnv a function"):
        WorldEnv(world)
    assert WorldEnv(lambda: world).world is world
    assert isinstance(WorldEnv(InPlace).world, InPlace)  # a class makes one, too


def test_worlds_go_to_other_processes():
    worlds = [
        example_world(),
        example_screen()[0],
        example_network(),
        *(LandscapeWorld(p()) for p in PROBLEMS.values()),
    ]
    for world in worlds:
        if not world.discrete:
            world.restart = Restart(0.5, drawn_from(torch.zeros(3, 1)))
        for again in (pickle.loads(pickle.dumps(world)), pickle.loads(pickle.dumps(WorldEnv(world))).world):
            again.restart = world.restart = None
            first, second = (w.reset(8, torch.Generator().manual_seed(0)) for w in (world, again))
            assert torch.equal(first, second)
            pickle.dumps(again)  # in the middle of an episode, too


def test_worlds_run_in_other_processes():
    envs = gymnasium.vector.AsyncVectorEnv([lambda: WorldEnv(example_world())] * 2, context="spawn")
    try:
        world = VectorWorld(envs, horizon=5)
        batch = batch_of(world, 2, 5)
        assert len(batch) == 10 and torch.isfinite(batch.advantage).all()
    finally:
        envs.close()


# How episodes begin anew -----------------------------------------------------------------------------------------


def lengths_found(world: VectorWorld, steps: int = 12) -> tuple[list[bool], list[float]]:
    "Which steps count, and the last observation of each episode of the first environment."
    world.reset(world.n_envs, torch.Generator().manual_seed(0))
    found = [world.step(torch.zeros(world.n_envs, 1)) for _ in range(steps)]
    ends = [s.final[0, 0].item() for s in found if s.terminated[0]]
    return [s.valid[0].item() for s in found], ends


@pytest.mark.parametrize(
    "told", ["SAME_STEP", "SameStep", "same_step", AutoresetMode.SAME_STEP, None, "NEXT_STEP"]
)
def test_restarts_in_the_same_step_whatever_is_told(told):
    envs = walks(3, 3, mode=AutoresetMode.SAME_STEP)
    envs.metadata = {k: v for k, v in envs.metadata.items() if k != "autoreset_mode"}
    if told is not None:
        envs.metadata["autoreset_mode"] = told
    valid, ends = lengths_found(VectorWorld(envs, horizon=3))
    assert all(valid) and ends == [3.0] * 4


@pytest.mark.parametrize("told", ["NEXT_STEP", "NextStep", AutoresetMode.NEXT_STEP])
def test_restarts_in_the_next_step(told):
    envs = walks(3, 3)
    envs.metadata = envs.metadata | {"autoreset_mode": told}
    valid, ends = lengths_found(VectorWorld(envs, horizon=3))
    assert valid == [True, True, True, False] * 3 and ends == [3.0] * 3


def test_restarts_that_nobody_tells():
    "Neither a word nor evidence: refused with a line of code that mends it."
    envs = walks(3, 3)
    envs.metadata = {}
    with pytest.raises(DataError, match="does not say how it restarts") as said:
        lengths_found(VectorWorld(envs, horizon=3))
    advice = str(said.value).split("restarts: ")[1].split(", or SAME_STEP")[0]
    exec(advice, {"envs": envs, "gymnasium": gymnasium})
    assert lengths_found(VectorWorld(envs, horizon=3))[1] == [3.0] * 3


@pytest.mark.parametrize(
    "said, make",
    [
        ("DISABLED", lambda: walks(3, mode=AutoresetMode.DISABLED)),
        ("'weekly' is unknown", lambda: told("weekly")),
        ("no final_obs", lambda: told("SAME_STEP")),
        ("leave that wrapper out", lambda: gymnasium.wrappers.vector.DictInfoToList(walks(3))),
        (
            "leave that wrapper out",
            lambda: gymnasium.wrappers.vector.RecordEpisodeStatistics(
                gymnasium.wrappers.vector.DictInfoToList(walks(3))
            ),
        ),
    ],
)
def test_vector_environments_that_are_refused(said, make):
    with pytest.raises(DataError, match=said) as error:
        lengths_found(VectorWorld(make(), horizon=3))
    assert "\n" not in str(error.value)


def told(mode) -> SyncVectorEnv:
    envs = walks(3)
    envs.metadata = {"autoreset_mode": mode}
    return envs


@pytest.mark.parametrize("name", ["Population", "Screen", "Trap", "Horseshoe", "Spiral", "Network"])
def test_registered_worlds_as_vectors(name):
    world = VectorWorld(gymnasium.make_vec(f"waddington/{name}-v0", num_envs=3))
    assert world.horizon == gymnasium.make(f"waddington/{name}-v0").unwrapped.world.horizon
    assert torch.isfinite(batch_of(world, 3, 2 * world.horizon + 2).advantage).all()


# Spaces ----------------------------------------------------------------------------------------------------------


class Odd(Walk):
    "A walk with other spaces; keeps the last action."

    def reset(self, *, seed=None, options=None):
        return self.shown(super().reset(seed=seed)[0]), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        observation, *rest = super().step(action)
        return self.shown(observation), *rest

    def shown(self, x):
        kind = self.observation_space
        return {"time": x, "kind": 1} if isinstance(kind, gymnasium.spaces.Dict) else x


SPACES = {
    "infinite": Box(-np.inf, np.inf, (2,)),
    "half": Box(0, np.inf, (1,)),
    "mixed": Box(np.array([-np.inf, -3]), np.array([np.inf, 4]), dtype=np.float64),
    "full range": Box(np.finfo(np.float32).min, np.finfo(np.float32).max, (1,)),
    "whole numbers": Box(np.iinfo(np.int64).min, np.iinfo(np.int64).max, (1,), np.int64),
    "from 5": Discrete(3, start=5),
    "two choices": gymnasium.spaces.MultiDiscrete([2, 3]),
    "switches": gymnasium.spaces.MultiBinary(3),
}


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_advice_on_actions_works_when_followed(name, mode):
    class Env(Odd):
        action_space = SPACES[name]

        def step(self, action):
            return super().step(np.asarray(action, self.action_space.dtype))

    envs = SyncVectorEnv([lambda: Env(5)] * 2, autoreset_mode=mode)
    with pytest.raises(DataError, match="action space") as said:
        VectorWorld(envs, horizon=5)
    mended = eval(str(said.value).split("wrap it: ")[1], {"gymnasium": gymnasium, "numpy": np, "envs": envs})
    world = VectorWorld(mended, horizon=5)
    assert len(batch_of(world, 2, 5)) == 10
    env = Env(5)
    with pytest.raises(DataError, match="action space") as said:
        audit(env, horizon=5)
    mended = eval(str(said.value).split("wrap it: ")[1], {"gymnasium": gymnasium, "numpy": np, "env": env})
    mended.reset(seed=0)
    mended.step(mended.action_space.sample())


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_advice_on_observations_works_when_followed(mode):
    class Env(Odd):
        observation_space = gymnasium.spaces.Dict({"time": Box(0, 9, (1,)), "kind": Discrete(2)})

    envs = SyncVectorEnv([lambda: Env(5)] * 2, autoreset_mode=mode)
    with pytest.raises(DataError, match="observation space") as said:
        VectorWorld(envs, horizon=5)
    advice = str(said.value).split(": ")[-1]
    if mode is AutoresetMode.NEXT_STEP:
        envs = eval(advice, {"gymnasium": gymnasium, "envs": envs})
    else:
        wrapped = lambda: eval(advice, {"gymnasium": gymnasium, "env": Env(5)})
        envs = SyncVectorEnv([wrapped] * 2, autoreset_mode=mode)
    world = VectorWorld(envs, horizon=5)
    assert world.observation_size == 3 and batch_of(world, 2, 5).observation[-1].tolist() == [0, 1, 4]


def test_actions_reach_the_bounds_of_any_box():
    for box in (
        Box(-2, 3, (2,)),
        Box(-128, 127, (1,), np.int8),
        Box(0, 255, (1,), np.uint8),
        Box(-1, 1, (2, 2)),
    ):
        ends = to_space(np.stack([np.full(box.shape, s).ravel() for s in (-1.0, 1.0)]), box)
        assert np.array_equal(ends, np.stack([box.low, box.high])) and ends.dtype == box.dtype


# Shapes of observations ------------------------------------------------------------------------------------------


def test_predict_checks_shapes():
    policy, space = Policy(6, 2), Box(-1, 1, (2,))
    flat, square = SB3Model(policy, space), SB3Model(policy, space, Box(-9, 9, (2, 3)))
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    each = np.stack([flat.predict(row, deterministic=True)[0] for row in x])
    assert each.shape == (4, 2) and np.allclose(flat.predict(x, deterministic=True)[0], each, atol=1e-6)
    shaped = square.predict(x.reshape(4, 2, 3), deterministic=True)[0]
    assert np.allclose(shaped, each, atol=1e-6)
    one = square.predict(x[0].reshape(2, 3), deterministic=True)[0]
    assert one.shape == (2,) and np.allclose(one, each[0], atol=1e-6)
    assert flat.predict(x[:1])[0].shape == (1, 2) and flat.predict(x[:0])[0].shape == (0, 2)
    for model, wrong in [
        (flat, x.reshape(4, 2, 3)[0]),
        (flat, x.reshape(8, 3)),
        (flat, x[:, :5]),
        (flat, np.float32(1)),
        (square, x),
        (square, {"a": x}),
    ]:
        with pytest.raises(DataError) as said:
            model.predict(wrong)
        assert "\n" not in str(said.value)
    with pytest.raises(DataError, match="takes 6 numbers"):
        SB3Model(policy, space, Box(-9, 9, (5,)))


# Normalisation ---------------------------------------------------------------------------------------------------


class Scaled(StateWorld):
    "A line; the nearer to zero the better, in any unit of reward and of place."

    observation_size, action_size, horizon = 1, 1, 6

    def __init__(self, reward: float = 1.0, place: float = 1.0):
        self.reward, self.place = reward, place

    def start(self, cells, generator):
        return torch.randn(cells, 1, generator=generator)

    def advance(self, state, action):
        state = state + 0.5 * action.clamp(-1, 1)
        return state, -self.reward * state[:, 0].square()

    def observe(self, state):
        return self.place * state


@pytest.mark.parametrize("stage", [PPO(steps=15_000), TRPO(steps=15_000)])
def test_normalised_training_has_no_unit(stage):
    "Rewards and observations from a millionth to a million: in powers of two, the same policy to the bit."
    learned = []
    for reward, place in [(1.0, 1.0), (2.0**-20, 1.0), (2.0**20, 1.0), (1.0, 2.0**-20), (1.0, 2.0**20)]:
        world = Scaled(reward, place)
        agent = agent_for(world, 0, normalise=True)
        history = train(world, agent, [stage], seed=0, n_envs=256)
        learned.append(torch.cat([p.flatten() for p in agent.policy.parameters()]))
        assert history["return"].iloc[-1] > 0.6 * history["return"].iloc[0]
    assert all(torch.equal(learned[0], other) for other in learned[1:])


def carts(scale: float, n: int = 8):
    make = lambda: gymnasium.wrappers.TransformReward(gymnasium.make("CartPole-v1"), lambda r: scale * r)
    return [make] * n


def our_score(scale: float, normalise: bool, steps: int) -> float:
    world = VectorWorld(SyncVectorEnv(carts(scale)), horizon=256)
    agent = agent_for(world, 0, normalise=normalise)
    stage = PPO(steps=steps, batch_size=64, n_epochs=10, learning_rate=3e-4, target_kl=None)
    train(world, agent, [stage], seed=0, n_envs=8)
    return mean_return(VectorWorld(SyncVectorEnv(carts(1.0, 20)), horizon=500), agent.policy, 20, seed=99)


def test_normalisation_beside_vec_normalize(capsys):
    "CartPole with rewards of a millionth and a million, beside VecNormalize and beside no normalisation, in one run."
    sb3 = pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    steps, envs = 16384, VecNormalize(DummyVecEnv(carts(1e6)))
    envs.seed(0)
    model = sb3.PPO("MlpPolicy", envs, n_steps=256, batch_size=64, seed=0, device="cpu").learn(steps)
    judge = VecNormalize(DummyVecEnv(carts(1.0, 20)), training=False, norm_reward=False)
    judge.seed(99)
    judge.obs_rms = envs.obs_rms
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a Monitor
        theirs = evaluate_policy(model, judge, n_eval_episodes=20)[0]
    plain = our_score(1.0, False, steps)
    ours = {scale: our_score(scale, True, steps) for scale in (1e-6, 1e6)}
    with capsys.disabled():
        print(f"\nCartPole, {steps} steps: VecNormalize {theirs:.0f}, none {plain:.0f}, ours {ours}")
    assert min(ours.values()) > 0.9 * theirs and min(ours.values()) > 0.9 * plain


# Audit and paper -------------------------------------------------------------------------------------------------


class Locked(Walk):
    "Pays for staying near zero; holds a lock, so it cannot be copied."

    def __init__(self):
        super().__init__(5)
        self.lock = threading.Lock()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.normal(size=1).astype(np.float32)
        return self.x.copy(), {}

    def step(self, action):
        self.x = np.clip(self.x + action, -5, 5).astype(np.float32)
        self.time += 1
        return self.x.copy(), -float(self.x[0] ** 2), self.time >= 5, False, {}


def test_audit_of_an_environment_that_cannot_be_copied():
    found = audit(Locked(), horizon=5, results=pd.DataFrame({"method": ["a"], "seed": [0]}))
    rows = found.set_index("check")
    assert rows.loc[["action", "sight", "convexity"], "severity"].tolist() == ["ok"] * 3
    assert rows.loc["results", "severity"] == "defect"
    assert rows.loc["nulls", "severity"] == "not checked"
    assert "Locked cannot be copied (cannot pickle" in rows.loc["nulls", "meaning"]
    assert "\n" not in rows.loc["nulls", "meaning"] and "vector" in rows.loc["nulls", "remedy"]


def test_paper_without_data(tmp_path, monkeypatch, waddington):
    "No folder of data: simulated cells, said in every row, on the page, as a warning and on the terminal."
    monkeypatch.delenv("WADDINGTON_DATA", raising=False)
    quick = ["--table", "crispr", "--quick", "--out", tmp_path / "out"]
    code, said = waddington("reproduce-paper", *quick)
    assert code == 0 and "crispr: simulated cells" in said and "papalexi21_eccite_299genes.h5ad" in said
    found = pd.read_csv(tmp_path / "out" / "paper.csv")
    assert set(found["data"]) == {"simulation"} and {"control", "perturbed"} == set(found["arm"])
    assert (tmp_path / "out" / "paper.md").read_text().startswith("## crispr (simulated cells)")
    rows = found[found["arm"] == "control"].set_index("method")
    assert rows.loc["no-op", "published_mse"] == 0 and rows["return"].idxmax() == "optimum"


def test_all_tables_of_the_paper_have_a_simulation():
    for table, (_, modalities) in paper.TABLES.items():
        made = paper.simulated_cells(table, 60)
        assert set(made) == set(modalities) and all(part.n_obs == 60 for part in made.values())
        cells = paper.paper_cells(made, modalities, 60, 100)
        assert cells.perturbed.sum() == 30 and np.isfinite(cells.x).all()
