"""Landscapes: bad input gets one clear line; numerics that take too long or too much room for the notebook."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from waddington_nb import landscapes as ls
from waddington_nb import networks
from waddington_nb.core import DataError
from waddington_nb.testbeds import NetworkWorld

BLOOD = networks.state_table(networks.blood_network())

SQUARE = ((-1, 1), (-1, 1))


def bowl(x):
    return x.square().sum(-1)


@pytest.mark.parametrize(
    "said, act",
    [
        ("the potential is not finite at", lambda: ls.Landscape(lambda x: x.sum(-1).log(), SQUARE)),
        ("not (2, 8); index the last axis", lambda: ls.Landscape(lambda x: x[0] + x[1], SQUARE)),
        ("not (2, 8, 2); index the last axis", lambda: ls.Landscape(None, SQUARE, force=bowl)),
        ("a potential or a force, one of the two", lambda: ls.Landscape(None, SQUARE)),
        ("low < high", lambda: ls.Landscape(bowl, ((1, -1),))),
        ("low < high", lambda: ls.Landscape(bowl)),
        ("signal 'p3' is no parameter; there is 'p1', 'p2'", lambda: replace(ls.binary_choice(), control=ls.Signals(("p3",), (0,), (1,)))),
        ("has no control; give it one", lambda: ls.drift(ls.Landscape(bowl, SQUARE), torch.zeros(2), torch.zeros(2))),
        ("a force but no potential", lambda: ls.energy(ls.gata1_pu1(), torch.ones(2))),
        ("start [4.0, 0.0] is outside the domain", lambda: ls.simulate(ls.binary_choice(), (4.0, 0.0), 5)),
        ("start has 1 coordinates, the landscape 2", lambda: ls.simulate(ls.binary_choice(), (4.0,), 5)),
        ("start [9.0, 0.0] is outside the domain", lambda: ls.simulate_control(replace(ls.trap(), start=(9.0, 0.0)), None)),
        ("end [0.0, 9.0] is outside the domain", lambda: ls.minimum_action_path(ls.trap().landscape, (0, 0), (0, 9))),
        ("target [1.6, 0.0] is no attractor; the attractors are [[", lambda: ls.simulate_control(replace(ls.trap(), target=(1.6, 0.0)), None)),
        ("target [0.0] is no attractor; the attractors are [[-1.0], [1.0]]", lambda: ls.settles_in(ls.double_well(), torch.zeros(1, 1), (0.0,))),
        ("target [1.6, 0.0] is no attractor", lambda: ls.optimal_control(replace(ls.trap(), target=(1.6, 0.0)))),
        ("at most 2 dimensions, this landscape has 10", lambda: ls.optimal_control(ls.rotated_problem(ls.trap(), 10))),
        ("at most 2 dimensions, this landscape has 11", lambda: ls.quasi_potential(ls.hill_network(), [0.0] * 11)),
        ("the exact integral is for 1 dimension", lambda: ls.mean_first_passage_1d(ls.quadruple_well(), -1, 1)),
        ("no node of the 201-node grid is in the target region", lambda: ls.mean_first_passage_grid(ls.double_well(), lambda x: x[:, 0] > 5)),
        ("use substeps=3 or dt below 0.25", lambda: ls.simulate(ls.double_well(), (-1.0,), 5, dt=0.6, substeps=1)),
        ("is unstable here", lambda: ls.simulate_control(replace(ls.trap(), dt=1.0), None)),
        ("no parameter 'p'; did you mean", lambda: ls.fold(ls.binary_choice(), "p", (0, 0), 1)),
        ("no fold found near", lambda: ls.fold(ls.Landscape(lambda x, k: x[..., 0].cosh() + k * x[..., 0], ((-1, 1),), {"k": 1.0}), "k", (0.5,), 2.0)),
        ("fewer than the 2 of the landscape", lambda: ls.rotated(ls.binary_choice(), 1)),
        ("give at least 10 finite rows", lambda: ls.density_potential(np.full((20, 2), np.nan))),
        ("give at least 10 finite rows of at most 2", lambda: ls.density_potential(np.zeros((20, 3)))),
        ("basins are found in 2 dimensions", lambda: ls.basins(ls.double_well())),
        ("no gene 'Gata3' in the network; did you mean", lambda: networks.settle(BLOOD, ("Gata3", True))),
        ("is no fixed point; choose one of", lambda: NetworkWorld(BLOOD, [], [(0, 5)])),
    ],
)  # fmt: skip
def test_refused_in_one_line(said, act):
    with pytest.raises(DataError) as refused:
        act()
    assert said in str(refused.value) and "\n" not in str(refused.value), str(refused.value)


def test_no_gradient_falls_back_with_a_warning():
    "A potential of numpy only: the same fixed points and the same optimum as with autograd."
    wells = lambda x: ((np.asarray(x) ** 2 - 1) ** 2).sum(-1)
    with pytest.warns(UserWarning, match="no gradient of the potential; finite differences instead"):
        own = ls.Landscape(wells, ((-3, 3), (-3, 3)), sigma=0.5)
    found, known = (ls.fixed_points(landscape) for landscape in (own, ls.quadruple_well()))
    assert [p.kind for p in found] == [p.kind for p in known] and len(found) == 9
    assert sorted(round(p.energy, 6) for p in found) == sorted(round(p.energy, 6) for p in known)
    with pytest.raises(DataError, match="autograd can differentiate"):
        ls.minimum_action_path(own, (-1, -1), (1, 1))


def test_single_precision_and_batches():
    "Worlds step in float32, with any batch shape, and get the same drift."
    for problem in (ls.trap(), ls.rotated_problem(ls.spiral(), 5)):
        landscape, d = problem.landscape, problem.landscape.dimensions
        x = torch.randn(3, 7, d, generator=torch.Generator().manual_seed(0))
        action = torch.rand(3, 7, d, generator=torch.Generator().manual_seed(1)) * 2 - 1
        single = ls.drift(landscape, x, action)
        assert single.dtype == torch.float32 and single.shape == x.shape
        assert torch.allclose(single.double(), ls.drift(landscape, x.double(), action.double()), atol=1e-4)
        assert torch.allclose(single[1, 2], ls.drift(landscape, x[1, 2], action[1, 2]), atol=1e-5)


def test_drift_is_minus_the_gradient():
    "Autograd against differences, on every landscape with a potential, embedded ones included."
    made = [
        ls.binary_choice(),
        ls.binary_flip(),
        ls.mueller_brown(),
        ls.quadruple_well(),
        ls.trap().landscape,
    ]
    for landscape in [
        *made,
        ls.horseshoe().landscape,
        ls.spiral().landscape,
        ls.rotated(ls.binary_choice(), 4),
    ]:
        x = ls._uniform(landscape, 50, seed=1) * 0.5
        exact = ls._field(landscape, x, landscape.parameters)
        differences = -ls._differences(lambda z, one=landscape: ls.energy(one, z), x)
        assert torch.allclose(exact, differences, rtol=1e-4, atol=1e-4 * float(exact.abs().max()))


def test_action_of_a_bent_way_is_twice_the_barrier():
    "On the Müller–Brown surface the way up to the higher pass is curved; the action is still 2 ΔV."
    path = ls.minimum_action_path(ls.mueller_brown(), (-0.558224, 1.441726), (-0.822002, 0.624313))
    assert abs(path.action / (2 * (146.699517 - 40.664844)) - 1) < 0.005


def test_optimum_of_the_trap_is_converged():
    "Neither more nodes nor more action levels move the optimum by more than 0.005, one part in four thousand."
    best = ls.optimal_control(ls.trap()).expected_return
    for options in ({"nodes": 161}, {"levels": 9}):
        assert abs(ls.optimal_control(ls.trap(), **options).expected_return - best) < 0.005


def bilinear(axis, places):
    "Sparse matrix of linear interpolation on a square grid at places (n, 2)."
    position = ((places - axis[0]) / (axis[1] - axis[0])).clip(0, len(axis) - 1 - 1e-9)
    node, part = position.astype(int), position % 1
    columns = [(node[:, 0] + i) * len(axis) + node[:, 1] + j for i in (0, 1) for j in (0, 1)]
    weights = [np.abs(1 - i - part[:, 0]) * np.abs(1 - j - part[:, 1]) for i in (0, 1) for j in (0, 1)]
    rows = np.tile(np.arange(len(places)), 4)
    return sparse.csr_matrix(
        (np.concatenate(weights), (rows, np.concatenate(columns))), shape=[len(axis) ** 2] * 2
    )


def test_optimum_of_the_trap_by_another_method():
    "Linear interpolation, Gauss-Hermite noise, 5 × 5 fixed actions on 121 × 121 nodes: the published 20.02, and a lower bound."
    problem, axis, h = ls.trap(), np.linspace(-4, 4, 121), 0.025
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    free = ls.drift(problem.landscape, torch.as_tensor(points)).numpy()
    hermite, weight = np.polynomial.hermite_e.hermegauss(3)
    noise = [
        (0.25 * math.sqrt(h) * np.array([a, b]), v * w / weight.sum() ** 2)
        for a, v in zip(hermite, weight, strict=True)
        for b, w in zip(hermite, weight, strict=True)
    ]
    actions = [np.array([a, b]) for a in np.linspace(-1, 1, 5) for b in np.linspace(-1, 1, 5)]
    chains = [
        sum(w * bilinear(axis, points + h * (free + 4 * a) + e) for e, w in noise).tocsr() for a in actions
    ]
    distance = ((points - problem.target) ** 2).sum(axis=1)
    future = -distance
    for _ in range(60):
        future = np.max(
            [
                chain @ (chain @ future) - 0.01 * (a**2).sum()
                for chain, a in zip(chains, actions, strict=True)
            ],
            axis=0,
        )
    bell = np.exp(-((points - problem.start) ** 2).sum(axis=1) / (2 * 0.1**2))
    coarse = float((bell * (future + distance)).sum() / bell.sum())
    assert abs(coarse - 20.02) < 0.05
    assert coarse < ls.optimal_control(problem).expected_return < coarse + 0.05


def test_optimum_of_a_linear_problem():
    "A bowl, a push without limits in reach, no noise in the return: against the Riccati recursion."
    k, gain, cost, steps, dt, sigma = 0.5, 2.0, 0.5, 40, 0.05, 0.2
    flat = ls.Landscape(lambda x: k * x.square().sum(-1) / 2, ((-2, 2),), sigma=sigma, control=ls.Push(gain))
    problem = ls.ControlProblem(flat, (0.6,), (0.0,), 0.01, steps, dt, 1, cost)
    p, constant, a, b = 1.0, 0.0, 1 - k * dt, gain * dt
    for _ in range(steps):  # U = -(p x² + constant)
        constant += p * sigma**2 * dt
        p = p * a**2 - (p * a * b) ** 2 / (cost + p * b**2)
    exact = (0.6**2 + 0.01**2) * (1 - p) - constant
    assert abs(ls.optimal_control(problem, nodes=201, levels=9).expected_return - exact) < 1e-3


def test_no_constant_push_reaches_the_centre_of_the_spiral():
    problem = ls.spiral()
    for angle in np.linspace(0, 2 * np.pi, 8, endpoint=False):
        push = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        run = ls.simulate_control(problem, lambda x, step, push=push: push.expand(len(x), 2), cells=50)
        assert run.arrived.double().mean() < 0.05


def test_same_seed_same_cells():
    problem = ls.horseshoe()
    runs = [ls.simulate_control(problem, ls.straight(problem), 20, seed) for seed in (3, 3, 4)]
    assert (runs[0].path == runs[1].path).all() and (runs[0].path != runs[2].path).any()


def test_settling_probabilities_are_those_of_walks():
    "Asynchronous walks from ∅ with Cebpa switched on: seven of eight become granulocytes, as computed."
    network, rng = BLOOD.network, np.random.default_rng(0)
    hold, digits = network.index("Cebpa"), 1 << np.arange(11)
    state = np.full(20_000, 1 << hold)
    for _ in range(200):
        disagree = ((BLOOD.wanted[state] ^ state)[:, None] & digits) > 0
        disagree[:, hold] = False
        gene = (disagree * rng.random(disagree.shape)).argmax(axis=1)
        state = np.where(disagree.any(axis=1), state ^ (1 << gene), state)
    exact = networks.settle(BLOOD, ("Cebpa", True))[0].toarray()[0]
    walked = np.bincount(state, minlength=2048) / len(state)
    assert np.abs(walked - exact).max() < 0.01
    assert {network.name(BLOOD.states([s])[0]): round(exact[s], 6) for s in exact.nonzero()[0]} == {
        "Cebpa-Pu.1-Gfi1": 0.875,
        "Cebpa-Pu.1-cJun-EgrNab": 0.125,
    }


def test_density_landscape_is_stationary():
    "Cells drawn from the density and moved by its Langevin equation keep their density: ε = 1."
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal((-2, 0), 0.5, (90, 2)), rng.normal((2, 1), 0.8, (210, 2))])
    landscape = ls.density_potential(points, bandwidth=0.4)
    start = np.repeat(points, 3, axis=0)
    start = torch.as_tensor(start + 0.4 * rng.standard_normal(start.shape))
    moved = ls.simulate(landscape, start, 40, dt=0.05, substeps=5)[:, -1]
    assert torch.allclose(moved.mean(0), start.mean(0), atol=0.2)
    assert torch.allclose(moved.T.cov(), start.T.cov(), atol=0.4)
    assert abs((moved[:, 0] < 0).double().mean() - 0.3) < 0.04
