"""Gene networks: any text is read or refused in one line, what runs agrees with what is computed, plans say what they know."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from waddington_nb import boolean_networks as bn
from waddington_nb import reprogramming as rp
from waddington_nb.core import DataError
from waddington_nb.policies import mode, sample

NETWORKS = Path(os.environ.get("WADDINGTON_DATA", "nowhere")) / "networks"
NAMES = ["a", "b2", "Pu.1", "v_x"]
RULES = st.recursive(
    st.sampled_from([*NAMES, "0", "1"]),
    lambda inner: st.one_of(
        inner.map(lambda x: f"!{x}"),
        st.tuples(inner, st.sampled_from("&|"), inner).map(lambda t: f"({' '.join(t)})"),
    ),
    max_leaves=12,
)


def refused(call, *words):
    with pytest.raises(DataError) as error:
        call()
    said = str(error.value)
    assert "\n" not in said and len(said) < 500
    assert all(word in said for word in words), said


@given(RULES)
@settings(max_examples=100, deadline=None)
def test_a_rule_reads_back_and_means_what_python_means(text):
    rule = bn.parse_rule(text)
    assert bn.rule_text(bn.parse_rule(bn.rule_text(rule))) == bn.rule_text(rule)
    python = text.replace("!", " not ").replace("&", " and ").replace("|", " or ").replace("Pu.1", "Pu_1")
    for row in range(2 ** len(NAMES)):
        level = {name: bool(row >> i & 1) for i, name in enumerate(NAMES)}
        names = {name.replace(".", "_"): value for name, value in level.items()}
        assert bool(bn.evaluate_rule(rule, level)) == bool(eval(python, {}, names))


@given(st.text(alphabet="ab&|!(), \n#01\x00é", max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_network_or_one_line(text):
    try:
        network = bn.parse_bnet(text)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert bn.bnet_text(bn.parse_bnet(bn.bnet_text(network))) == bn.bnet_text(network)


def test_line_numbers():
    refused(
        lambda: bn.parse_bnet("targets, factors\n\na, b\nb, (a", "my.bnet"),
        "my.bnet, line 4",
        "'b'",
        "closed",
    )
    refused(lambda: bn.parse_bnet("a, b\n# no\na b"), "line 3")


@pytest.mark.skipif(not NETWORKS.is_dir(), reason="the folder of networks is not here")
def test_all_published_networks_read():
    import pandas as pd

    index = pd.read_csv(NETWORKS / "index.csv", dtype={"id": str})
    for row in index.itertuples():
        network = bn.read_network(NETWORKS / f"{row.id}.bnet")
        assert (network.n_free, int(network.is_input.sum())) == (row.variables, row.inputs)
        states = torch.randint(2, (8, len(network.genes))).float()
        level = dict(zip(network.genes, states.bool().T, strict=True))
        plain = [torch.as_tensor(bn.evaluate_rule(rule, level)).expand(8) for rule in network.rules]
        assert (bn.compile_rules(network).wanted(states) == torch.stack(plain, 1)).all()


@pytest.mark.parametrize("seed", range(6))
def test_sampling_finds_what_enumeration_proves(seed):
    network = bn.random_network(8, 2, seed)
    exact = bn.exact_attractors(bn.state_table(network))
    found = bn.sampled_attractors(network, seed=seed, cells=2000)
    fixed = lambda attractors: {a.states.tobytes() for a in attractors if a.is_fixed}
    assert fixed(found) == fixed(exact)
    everywhere = {row.tobytes() for a in exact for row in a.states}
    assert all(row.tobytes() in everywhere for a in found for row in a.states)


@pytest.mark.parametrize("seed", range(4))
def test_cells_land_where_the_equations_say(seed):
    network, rng = bn.random_network(7, 3, seed), np.random.default_rng(seed)
    table, rules, n = bn.state_table(network), bn.compile_rules(network), 6000
    code, hold = int(rng.integers(128)), (f"g{rng.integers(7)}", bool(rng.integers(2)))
    exact, share = bn.landing(table, np.array([code]), hold), np.zeros(128)
    for part, weight, chance in zip(exact.parts, exact.weight, exact.chance[0], strict=True):
        share[part] += chance * weight
    states = torch.as_tensor(table.states(np.array([code]))).float().repeat(n, 1)
    held = torch.zeros(n, 7, dtype=torch.bool)
    held[:, network.index(hold[0])], states[:, network.index(hold[0])] = True, float(hold[1])
    ended = bn.run_network(rules, states, torch.Generator().manual_seed(seed), held, time=80.0)
    assert (ended[:, network.index(hold[0])] == float(hold[1])).all()
    seen = np.bincount(table.codes(ended.numpy()), minlength=128) / n
    assert abs(share.sum() - 1) < 1e-9 and abs(seen - share).max() < 4 * 0.5 / n**0.5


def test_three_hundred_genes_run():
    rules = bn.compile_rules(bn.random_network(300, 2, seed=0))
    states = torch.randint(2, (4096, 300), generator=torch.Generator().manual_seed(0)).float()
    moved = bn.run_network(rules, states, torch.Generator().manual_seed(0), time=0.05, noise=0.01)
    assert moved.shape == (4096, 300) and ((moved == 0) | (moved == 1)).all() and (moved != states).any()
    again = bn.run_network(rules, states, torch.Generator().manual_seed(0), time=0.05, noise=0.01)
    assert (moved == again).all()


@pytest.fixture(scope="module")
def toggles():
    "Two toggles side by side, and a ring that turns while the first is on: fixed points and cycles."
    text = "A, !B\nB, !A\nC, !D\nD, !C\nr, A & !t\ns, r\nt, s"
    return rp.all_pairs(bn.parse_bnet(text))


def test_cycling_attractors_are_sources_and_goals(toggles):
    assert len(toggles.goals) == 4 and len(toggles.pairs) == 12
    assert sorted(len(states) for states in toggles.sources) == [1, 1, 6, 6]


def test_rewards_of_an_episode_add_up(toggles):
    world = rp.ReprogrammingWorld(toggles)
    observation, generator = (
        world.reset(300, torch.Generator().manual_seed(0)),
        torch.Generator().manual_seed(1),
    )
    agent = rp.network_agent(world, 0)
    began, total, paid = world.distance(world.state), torch.zeros(300), torch.zeros(300)
    going = torch.ones(300, dtype=torch.bool)
    for _ in range(world.horizon):
        action = sample(agent.policy(observation), generator)
        assert observation.gather(1, observation.shape[1] - world.action_size + action[:, None]).min() == 1
        step = world.step(action)
        total[going] += step.reward[going]
        paid[going] += world.cost * (action < len(world.holds))[going]
        going &= ~step.terminated
        observation = step.observation
    assert not going.any()
    assert set((total + paid - world.shaping * began).round(decimals=4).abs().tolist()) == {
        0.0,
        1.0,
    }  # arrived, or not


def test_learns_what_is_optimal_with_cycles(toggles):
    world = rp.ReprogrammingWorld(toggles, time=20.0)
    agent, _ = rp.learn(world, 0, find=36_864, spare=36_864)
    answer = rp.ExactAnswer(world)
    best, ours = answer.optimum(), answer.of(lambda seen: mode(agent.policy(seen)))
    assert ours["success"].mean() >= 0.97 * best["success"].mean() and best["success"].mean() > 0.95
    assert ours["interventions"].mean() <= 1.1 * best["interventions"].mean()
    seen = rp.played(world, lambda seen: mode(agent.policy(seen)), 300)
    assert abs(seen["success"] - ours["success"]).max() < 0.12


def test_no_sequence_beats_the_best_policy(toggles):
    world = rp.ReprogrammingWorld(toggles)
    answer = rp.ExactAnswer(world)
    best = answer.optimum()
    for pair in range(0, 12, 3):
        found, proved = rp.exact_sequence(answer, pair, width=500)
        value = best.loc[pair, "success"] - world.cost * best.loc[pair, "interventions"]
        assert found.success - world.cost * found.interventions <= value + 1e-9
        if (
            len(toggles.sources[toggles.pairs[pair, 0]]) == 1
        ):  # elsewhere the cells differ in where they begin
            assert abs(rp.sequence_success(world, pair, found.actions, 400) - found.success) < 0.1


def test_a_plan_beyond_enumeration_says_so():
    lines = [f"x{i}, x{i - 1}" for i in range(1, 18)]
    network = bn.parse_bnet("\n".join(["x0, x0 | x17", *lines, "y, x0"]).replace("x0, x0 | x17", "x0, x17"))
    off, on = dict.fromkeys(network.genes, False), dict.fromkeys(network.genes, True)
    plan = rp.steer_network(
        network, source=off, target=on, candidates=["x0", "x9", "y"], effort=6144, cells=50
    )
    assert plan.optimum is None and "too many for an exact answer (at most 16)" in plan.notes[1]
    assert plan.table["arrives"].iloc[0] > 0.8 and "not proved" in plan.notes[1]
    refused(
        lambda: rp.steer_network(network, source=off, target=on, candidates=["y"], effort=6144, cells=20, steps=2),
        "no way to the target was found", "not proved",
    )  # fmt: skip


BLOOD = {"source": "Gata1-Fog1-EKLF-SCL", "target": "Cebpa-Pu.1-Gfi1"}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"target": BLOOD["source"]}, ["in the target already"]),
        ({"target": "Gata9"}, ["no gene 'Gata9'", "did you mean"]),
        ({"source": {"GATA1": True}}, ["no gene 'GATA1'"]),
        ({"target": "Gata1"}, ["no fixed point", "would change"]),
        ({"target": {"EKLF": True, "Pu.1": True}}, ["no attractor has", "proved"]),
        ({"candidates": ["Gata2"], "forbid": ["Gata2"]}, ["all candidates are forbidden"]),
        ({"forbid": ["nobody"]}, ["no gene 'nobody'"]),
        ({"candidates": ["EKLF"]}, ["no way", "proved"]),
        ({"inputs": {"Gata1": True}}, ["no input"]),
    ],
)
def test_bad_questions_get_one_line(changed, words):
    refused(lambda: rp.steer_network(bn.blood_network(), **(BLOOD | changed)), *words)


def test_an_input_is_not_held():
    network = bn.parse_bnet("A, !B & !drug\nB, !A")
    refused(lambda: rp.holds_of(network, ["drug"]), "is an input")
    refused(lambda: bn.state_table(bn.random_network(17)), "17 free genes", "at most 16")


def test_control_sets():
    pytest.importorskip("biodivine_aeon", reason="the optional extra [networks] is not installed")
    blood = bn.blood_network()
    ends = {blood.name(a.states[0]): a.states[0] for a in bn.attractors_of(blood)}
    assert rp.control_set(blood, ends["∅"], ends["Pu.1-cJun-EgrNab"]) == [("Pu.1", True)]
