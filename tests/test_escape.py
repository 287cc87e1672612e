"""Escaping: restarts lead out of the trap, their absence does not; bad input gets one clear line; tables resume."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from waddington_nb import escape, testbeds, worlds
from waddington_nb import landscapes as ls
from waddington_nb.core import DataError


@pytest.fixture(scope="module")
def blood() -> testbeds.NetworkWorld:
    return testbeds.example_network()


def network(blood, **changed):
    return testbeds.NetworkWorld(
        **({"table": blood.table, "holds": [("Gata1", True)], "pairs": [(0, 0)]} | changed)
    )


@pytest.mark.parametrize(
    "said, act",
    [
        ("start [9.0, 0.0] is outside the domain", lambda _: testbeds.LandscapeWorld(replace(ls.trap(), start=(9.0, 0.0)))),
        ("target [1.6, 0.0] is no attractor", lambda _: testbeds.LandscapeWorld(replace(ls.trap(), target=(1.6, 0.0)))),
        ("is unstable here", lambda _: testbeds.LandscapeWorld(replace(ls.trap(), dt=1.0))),
        ("has no control; give it one", lambda _: testbeds.LandscapeWorld(replace(ls.trap(), landscape=replace(ls.trap().landscape, control=None)))),
        ("is no fixed point; choose one of exact_attractors", lambda b: network(b, pairs=[(0, 1)])),
        ("pairs must be (start, goal) rows of state numbers below 2048", lambda b: network(b, pairs=[(0, 4000)])),
        ("pairs must be (start, goal) rows", lambda b: network(b, pairs=[0, 1])),
        ("no landscape 'horse'; did you mean 'horseshoe'", lambda _: escape.case("horse")),
        ("no method 'PPO2'; did you mean 'PPO'", lambda _: escape.run_one("trap", "PPO2", 0)),
        ("there is no straight way through a gene network", lambda _: escape.run_one("haematopoiesis", "TRPO → PPO, pretrained", 0, 1)),
        ("restart share is 1.5", lambda _: escape.learn(escape.case("haematopoiesis"), replace(escape.METHODS[escape.RECOMMENDED], share=1.5), 0, 6144)),
    ],
)  # fmt: skip
def test_refused_in_one_line(said, act, blood):
    with pytest.raises(DataError) as refused:
        act(blood)
    assert said in str(refused.value) and "\n" not in str(refused.value), str(refused.value)


def test_restarts_lead_out_of_the_trap(tmp_path, waddington):
    code, said = waddington("landscapes", "--quick", "--out", tmp_path)
    assert code == 0, said
    path = tmp_path / "escape.csv"
    table = pd.read_csv(path).set_index("method")
    share = table["share_in_target_basin"]
    assert share["optimum"] > 0.99 and share["TRPO → PPO, restarts"] > 0.95
    assert share["straight"] < 0.01  # a wide policy may find the way without restarts: no claim about it
    assert table.loc["TRPO → PPO, restarts", "return"] > 0.97 * table["optimal_return"].iloc[0]
    assert table.loc["straight", "return"] < 17.5
    written = path.read_bytes()
    assert waddington("landscapes", "--quick", "--out", tmp_path)[0] == 0
    assert path.read_bytes() == written  # nothing was run again


def test_unusable_folders_are_refused(tmp_path, waddington):
    (tmp_path / "file").write_text("")
    assert "is a file; choose another --out" in waddington("landscapes", "--out", tmp_path / "file")[1]
    (tmp_path / "escape.csv").write_text("a,b\n1,2\n")
    code, said = waddington("landscapes", "--quick", "--out", tmp_path)
    assert code == 2 and "is not an escape table" in said


def test_equal_seeds_give_equal_worlds(blood):
    for world in (testbeds.LandscapeWorld(ls.trap()), blood):
        world.restart = worlds.Restart(0.5, world.anywhere)
        action = torch.ones(64, dtype=torch.long) if world.discrete else torch.ones(64, world.action_size)
        runs = []
        for _ in range(2):
            first = world.reset(64, torch.Generator().manual_seed(3))
            runs.append([first, *(world.step(action).reward for _ in range(world.horizon))])
        assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
        world.restart = None


def test_network_rewards_are_nearness_less_cost(blood):
    "Summed over an episode: genes that differ at the start less those at the end, less 0.2 per intervention paid for."
    blood.restart = worlds.Restart(1.0, blood.anywhere)
    blood.reset(500, torch.Generator().manual_seed(0))
    start, generator, total, paid = blood.state, torch.Generator().manual_seed(1), 0.0, 0
    for _ in range(blood.horizon):
        state, action = blood.state, torch.randint(blood.action_size, (500,), generator=generator)
        paid = paid + ((action < blood.action_size - 1) & (state[:, 0] != state[:, 1]))
        moved = blood.advance(state, action)
        total, blood.state = total + moved[1], moved[0]
    expected = blood.distance(*start.T) - blood.distance(*blood.state.T) - 0.2 * paid
    assert np.allclose(total, expected, atol=1e-4)
    blood.restart = None


def test_the_lifted_optimum_is_as_good_in_ten_dimensions():
    "The plane's optimal policy, led through the rotation, earns the plane's optimum and brings every cell home."
    row = escape.run_one("trap in 10-D", "optimum", 0)
    assert row["share_in_target_basin"] > 0.99
    assert abs(row["return"] / row["optimal_return"] - 1) < 0.01
