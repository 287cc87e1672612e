"""Gene networks: any text is read or refused in one line, what runs agrees with what is computed, plans say what they know."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import waddington_nb as wd
from waddington_nb import cli
from waddington_nb import networks as bn
from waddington_nb import reprogramming as rp
from waddington_nb.core import DataError
from waddington_nb.graph_policies import graph_choice, train_graph_policy
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
        paid[going] += rp.COST * (action < len(world.holds))[going]
        going &= ~step.terminated
        observation = step.observation
    assert not going.any()
    assert set((total + paid - world.shaping * began).round(decimals=4).abs().tolist()) == {
        0.0,
        1.0,
    }  # arrived, or not


def test_learns_what_is_optimal_with_cycles(toggles):
    world = rp.ReprogrammingWorld(toggles, time=20.0)
    agent, _ = rp.train_policy(world, seed=0, find=18_432, spare=12_288)
    answer = rp.ExactAnswer(world)
    best, ours = answer.optimum(), answer.of(lambda seen: mode(agent.policy(seen)))
    assert ours["success"].mean() >= 0.97 * best["success"].mean() and best["success"].mean() > 0.95
    assert ours["interventions"].mean() <= 1.02 * best["interventions"].mean()
    seen = rp.played(world, lambda seen: mode(agent.policy(seen)), 300)
    assert abs(seen["success"] - ours["success"]).max() < 0.12


def test_a_last_look_takes_over_what_is_better():
    "From a policy that has learned nothing; twice the same with one seed, and what is learned holds exactly."
    world = rp.ReprogrammingWorld(rp.all_pairs(bn.parse_bnet("A, !B\nB, !A\nC, !D\nD, !C")))
    answer, worth = rp.ExactAnswer(world), []
    for rounds in (0, 3, 3):
        agent = rp.network_agent(world, 0)
        rp._revise(world, agent, seed=0, budget=20_000, rounds=rounds)
        table = answer.of(lambda seen, agent=agent: mode(agent.policy(seen)))
        worth.append((table["success"] - table["cost"]).mean())
    assert worth[1] == worth[2] > worth[0] + 0.1


def test_one_policy_for_networks_of_any_size(toggles):
    "Trained in two networks it acts in a third with other genes; a network without a choice teaches nothing."
    rules = (TOGGLE, "A, !B\nB, !A\nC, A")
    worlds = lambda: [rp.ReprogrammingWorld(rp.all_pairs(bn.parse_bnet(text))) for text in rules]
    (agent, _), (again, _) = (train_graph_policy(worlds(), steps=3072, seed=0) for _ in range(2))
    one, two = agent.policy.state_dict(), again.policy.state_dict()
    assert all((one[name] == two[name]).all() for name in one)
    world = rp.ReprogrammingWorld(toggles, time=20.0)
    assert rp.played(world, graph_choice(agent.policy, world), 20)["success"].mean() > 0.9
    refused(lambda: train_graph_policy([]), "no worlds")
    refused(
        lambda: rp.ReprogrammingWorld(rp.all_pairs(bn.parse_bnet("A, 1\nB, A"))), "no pair", "two attractors"
    )


def test_a_state_of_a_cycle_is_no_fixed_point():
    network = bn.parse_bnet("A, !B\nB, A\nD, D")
    asked = {"source": {"D": False}, "target": {"A": True, "B": True, "D": True}}
    refused(
        lambda: rp.steer(network, **asked),
        "'A-B-D' is no fixed point (A would change)",
        "(cycles)",
        "pattern",
    )


def test_no_sequence_beats_the_best_policy(toggles):
    world = rp.ReprogrammingWorld(toggles)
    answer = rp.ExactAnswer(world)
    best = answer.optimum()
    for pair in range(0, 12, 3):
        found, proved = rp.exact_sequence(answer, pair, width=500)
        value = best.loc[pair, "success"] - rp.COST * best.loc[pair, "interventions"]
        assert found.success - rp.COST * found.interventions <= value + 1e-9
        if (
            len(toggles.sources[toggles.pairs[pair, 0]]) == 1
        ):  # elsewhere the cells differ in where they begin
            assert abs(rp.sequence_success(world, pair, found.actions, 400) - found.success) < 0.1


def test_a_plan_beyond_enumeration_says_so():
    lines = [f"x{i}, x{i - 1}" for i in range(1, 18)]
    network = bn.parse_bnet("\n".join(["x0, x0 | x17", *lines, "y, x0"]).replace("x0, x0 | x17", "x0, x17"))
    off, on = dict.fromkeys(network.genes, False), dict.fromkeys(network.genes, True)
    plan = rp.steer(network, source=off, target=on, candidates=["x0", "x9", "y"], effort=6144, n_cells=50)
    assert plan.optimum is None and "too many for an exact answer (at most 16)" in plan.notes[0]
    assert plan.table["arrives"].iloc[0] > 0.8 and "not proved" in plan.notes[0]
    refused(
        lambda: rp.steer(network, source=off, target=on, candidates=["y"], effort=6144, n_cells=20, steps=2),
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
        ({"candidates": ["Gata1", "Gatta"]}, ["no gene 'Gatta'"]),
        ({"costs": {"Gata9": 1.0}}, ["costs name 'Gata9'", "no candidate"]),
        ({"costs": -1.0}, ["at least 0"]),
        ({"steps": 0}, ["at least 1 intervention"]),
        ({"noise": 1.5}, ["noise is 1.5"]),
        ({"hold_time": 0.0}, ["hold_time is 0"]),
    ],
)
def test_bad_questions_get_one_line(changed, words):
    refused(lambda: rp.steer(bn.blood_network(), **(BLOOD | changed)), *words)


def test_an_input_is_not_held():
    network = bn.parse_bnet("A, !B & !drug\nB, !A")
    refused(lambda: rp.holds_of(network, ["drug"]), "is an input")
    refused(lambda: bn.state_table(bn.random_network(17)), "17 free genes", "at most 16")


def test_control_sets():
    pytest.importorskip("biodivine_aeon", reason="the optional extra [networks] is not installed")
    blood = bn.blood_network()
    ends = {blood.name(a.states[0]): a.states[0] for a in bn.attractors_of(blood)}
    assert rp.control_set(blood, ends["∅"], ends["Pu.1-cJun-EgrNab"]) == [("Pu.1", True)]
    assert rp.control_set(blood, ends["∅"], ends["Pu.1-cJun-EgrNab"], permanent=True)


def test_sbml_qual_is_read(tmp_path):
    "Written by the library that reads it; the rules come back as they were, inputs too."
    aeon = pytest.importorskip("biodivine_aeon", reason="the optional extra [networks] is not installed")
    text = "A, !B & !drug\nB, !A | A & drug\ndrug, drug\n"
    path = tmp_path / "toggle.sbml"
    path.write_text(aeon.BooleanNetwork.from_bnet("targets, factors\n" + text).to_sbml())
    one, two = bn.read_network(path), bn.parse_bnet(text)
    order = [one.index(gene) for gene in two.genes]
    assert set(one.genes) == set(two.genes) and (one.is_input[order] == two.is_input).all()
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    there = torch.empty_like(states)
    there[:, order] = states
    assert (bn.compile_rules(one).wanted(there)[:, order] == bn.compile_rules(two).wanted(states)).all()
    (tmp_path / "broken.sbml").write_text("<sbml><model></sbml>")
    refused(lambda: bn.read_network(tmp_path / "broken.sbml"), "broken.sbml")


TOGGLE = "A, !B\nB, !A"


def quick(**asked):
    return rp.steer(bn.parse_bnet(TOGGLE), source="A", target="B", effort=3072, n_cells=50, **asked)


def test_plans_have_one_face(tmp_path):
    plan = quick(seed=0)
    assert isinstance(plan, wd.Plan) and "brings" in plan.verdict() and not plan.abstains
    rows = pd.read_csv(plan.to_csv(tmp_path / "plan.csv"))
    assert {
        "rank",
        "sequence",
        "held_at_once",
        "arrives",
        "arrives_low",
        "arrives_high",
        "interventions",
        "distance",
    } <= set(rows)
    page = plan.to_html(tmp_path / "plan.html", settings={"seed": 0}, notes=["seen"]).read_text()
    assert plan.verdict().split(".")[0] in page and "seen" in page and "http" not in page
    for cells in (plan.simulate(cells=30), plan.simulate(["A off"], cells=30)):
        assert list(cells.var_names) == ["A", "B"] and {"step", "done", "arrived"} <= set(cells.obs)
        assert cells.obs.groupby("step")["arrived"].mean().iloc[[0, -1]].tolist() == [0.0, 1.0]
    refused(lambda: plan.simulate(["C on"]), "no candidate of this plan")


def test_dear_genes_are_left_alone():
    "Of two ways that are as good, the cheaper one; the optimum counts costs, too."
    for dear, cheap in (("A", "B"), ("B", "A")):
        plan = quick(costs={dear: 0.5}, seed=0)
        assert plan.table["sequence"].iloc[[0, 1]].str.startswith(cheap).any()
        assert all(hold is None or hold[0] == cheap for hold in [plan.next({"A": True})])
        table = rp.ExactAnswer(plan.world).optimum()
        assert np.isclose(table["cost"][0], rp.COST) and np.isclose(table["success"][0], 1)


def test_what_is_held_for_good_stays():
    "C falls back once B is let go; held for good it stays, and the policy knows what is held."
    network = bn.parse_bnet("A, A\nB, 0\nC, B")
    asked = {"source": "∅", "target": {"C": True}, "candidates": ["B"], "n_cells": 30, "effort": 3072}
    refused(lambda: rp.steer(network, **asked), "no attractor has C", "proved")
    plan = rp.steer(network, **asked, permanent=True)
    assert plan.table["arrives"].iloc[0] == 1 and "for good" in plan.notes[0] and plan.optimum is None
    assert plan.best == ("B on",) and plan.next({}) == ("B", True)
    world = plan.world
    rows, _ = world.advance(
        world.rows_at(torch.zeros(4, 3), 0, 6), torch.full((4,), world.holds.index(("B", True)))
    )
    assert (
        world.held(rows).float().sum(dim=1).tolist() == [1.0] * 4
        and not world.allowed(rows)[:, world.holds.index(("B", True))].any()
    )
    assert (world.rows_of(world.observe(rows)) == rows).all()


def test_a_brief_hold_moves_fewer_cells():
    "A chain of four: held long enough the signal gets through, held briefly it seldom does."
    network = bn.parse_bnet("x0, x0 & x3\nx1, x0\nx2, x1\nx3, x2")
    share = {}
    for time in (0.1, None):
        world = rp.ReprogrammingWorld(rp.all_pairs(network), holds=[("x0", True)], hold_time=time)
        pair = [tuple(p) for p in world.questions.pairs.tolist()].index((0, 1))
        share[time] = rp.sequence_success(world, pair, [0], 300)
    assert share[None] > 0.99 and share[0.1] < 0.5


def test_the_command_plans_on_a_network(tmp_path, capsys):
    path, out = tmp_path / "toggle.bnet", tmp_path / "out"
    path.write_text(TOGGLE)
    asked = ["steer", str(path), "--from", "A", "--to", "B", "--steps", "1", "--cost", "0.2"]
    assert cli.main([*asked, "--out", str(out)]) == 0
    rows = pd.read_csv(out / "plan.csv")
    assert np.isclose(rows["cost"].max(), 0.2) and "brings" in capsys.readouterr().out
    assert load_file(out / "policy.safetensors") and "0.2" in (out / "report.html").read_text()
    for change, says in [
        (["--to", "C"], "no gene 'C'"),
        (["--to", "A"], "already"),
        (["--forbid", "A", "B"], "all candidates"),
    ]:
        assert cli.main([*asked, *change, "--out", str(tmp_path / "other")]) == 2
        said = capsys.readouterr().err
        assert says in said and said.count("\n") == 1
    path.write_text("A, !B\nB, !(A")
    assert cli.main([*asked, "--out", str(tmp_path / "other")]) == 2
    said = capsys.readouterr().err
    assert "toggle.bnet, line 2, gene 'B'" in said and said.count("\n") == 1


def test_what_was_learned_is_seen():
    "The history rises from few cells that arrive to the exact optimum, and its steps go on from stage to stage."
    plan = rp.steer(bn.blood_network(), **BLOOD, steps=2, effort=24_576, n_cells=50)
    seen = plan.history
    assert seen["steps"].is_monotonic_increasing and list(seen["stage"].unique()) == ["trpo", "ppo"]
    assert seen["arrives"].iloc[0] < 0.5 and seen["arrives"].iloc[-1] > 0.8 * plan.optimum[0]
    assert rp.plot_learning(plan, show=False).axes[0].get_ylabel() == "share of cells that arrive"
