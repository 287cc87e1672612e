"""The paper's worlds, rebuilt: the scores say what the notebook says, and the audit flags each published defect."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from waddington_nb import paper
from waddington_nb.audits import audit, check_action, check_convexity, check_sight, check_targets
from waddington_nb.core import DataError
from waddington_nb.training import PPO, TRPO, agent_for, train


def made_up(path: Path, key: str = "perturbation", control: str = "control") -> Path:
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({key: np.repeat([control, "IFNB"], 150)}, index=[f"c{i}" for i in range(300)])
    level = 0.5 * rng.normal(size=(300, 5)) + np.where(np.arange(300) < 150, 0.0, 0.7)[:, None]
    counts = rng.poisson(np.exp(level @ rng.normal(size=(5, 60)) * 0.5)).astype(np.float32)
    names = [f"IL{i}" for i in range(12)] + [f"gene{i}" for i in range(48)]
    ad.AnnData(sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=names)).write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> paper.PaperCells:
    return paper.paper_cells(made_up(tmp_path_factory.mktemp("paper") / "cells.h5ad"))


@pytest.fixture(scope="module")
def z(cells) -> np.ndarray:
    return paper.fused_embedding(cells.x, steps=60)


@pytest.fixture(scope="module")
def screen(cells, z) -> paper.Arm:
    return paper.screen_arm(cells, z, "cytokine")


@pytest.mark.parametrize("key, control", paper.SCHEMAS)
def test_schemas_of_the_sets(tmp_path, cells, key, control):
    "Replogle, Virtual Cell, Parse: the same cells under their column names give the same table."
    other = paper.paper_cells(made_up(tmp_path / "x.h5ad", key, control))
    assert (other.x == cells.x).all() and (other.perturbed == cells.perturbed).all()


def test_refusals(tmp_path):
    with pytest.raises(DataError, match="rename one"):
        paper.paper_cells(made_up(tmp_path / "a.h5ad", "condition", "ctrl"))
    with pytest.raises(DataError, match="did you mean 'crispr'"):
        paper.reproduce("crisp")
    with pytest.raises(DataError, match="which table"):
        paper.reproduce("all", data=tmp_path / "a.h5ad")


def test_action_ignored_in_the_perturbed_arm(screen):
    assert check_action(paper.AutonomousWorld(screen.world, screen.truth)).severity == "defect"
    assert check_action(screen.world).severity == "ok"


def test_hidden_target_of_the_multimodal_world(cells, z):
    assert check_sight(paper.drift_arm(cells, z).world).severity == "defect"


def test_screen_is_convex_and_aims_elsewhere_in_the_test(screen):
    assert check_convexity(screen.world).severity == "note"
    assert check_targets(screen.world, screen.test).severity == "defect"
    assert check_targets(screen.world, screen.world).severity == "ok"


def test_published_protocol(cells, z, screen):
    "Start against final state, mean paths, row numbers as time, random graph attention, the cells themselves as truth, one seed."
    start, truth = z[~cells.perturbed], z[cells.perturbed]
    obs = pd.DataFrame(index=[f"c{i}" for i in range(len(z))])
    wide = paper.fit_pca(cells.x, 30).encode(cells.x)
    found = audit(
        metric=lambda start, final, truth: paper.start_final(start, final)[0],
        start=start, truth=truth, train_obs=obs, test_obs=obs, pseudotime=np.arange(len(z)) / len(z),
        encoder=lambda x: paper.graph_attention(x, seed=0), fresh=lambda seed: lambda x: paper.graph_attention(x, seed=seed + 1),
        x=wide, trajectory=paper.mean_path_dtw, results=pd.DataFrame({"method": ["PPO", "TRPO→PPO"], "seed": 0}),
    )  # fmt: skip
    flagged = {"metric", "leakage", "pseudotime", "encoder", "trajectory", "results"}
    assert set(found.defects["check"]) == flagged


def test_published_score_of_the_multimodal_world(cells, z):
    "obs + action against the same obs: the metric cannot know where the cells should be."
    arm = paper.drift_arm(cells, z)
    step = lambda start, final: start + np.clip(final - start, -1, 1)  # the action that would go there
    found = audit(
        metric=lambda start, final, truth: paper.start_final(start, step(start, final))[0],
        start=arm.starts.numpy(), truth=arm.truth.numpy(),
    )  # fmt: skip
    assert set(found.defects["check"]) == {"metric"}


def test_corrected_worlds_have_none_of_the_defects(tmp_path):
    "Aim and truth from different real cells, both unseen by what is fitted; the screen and the multi-modal world are clean."
    path = made_up(tmp_path / "x.h5ad")
    cells = paper.paper_cells(path, hold_out=True)
    z = paper.fused_embedding(cells.x, steps=60, fit=~cells.unseen)
    for table in ("cytokine", "rna"):
        arm = paper.honest_arm(cells, z, table, paper.screened(cells, table))
        assert (len(arm.starts), len(arm.truth)) == (30, 75) and len(arm.world.states) == 120
        scored = torch.cat([arm.starts, arm.truth])
        assert torch.cdist(scored, arm.world.states).min() > 0  # no scored cell is a training cell
        assert {check(arm.world).severity for check in (check_action, check_sight)} == {"ok"}
        assert check_targets(arm.world, arm.test).severity == "ok"
    assert not (paper.paper_cells(path, hold_out=True, seed=1).unseen == cells.unseen).all()


def test_second_stage_that_stops(screen):
    stages = [TRPO(steps=2048), PPO(steps=6144, target_kl=0.0, n_epochs=10, batch_size=64)]
    history = train(screen.world, agent_for(screen.world, 0, log_std=0.0), stages, seed=0, n_envs=2048)
    assert set(audit(history=history).defects["check"]) == {"history"}


def test_optimum_is_an_optimum(screen):
    known = paper.controllers(screen.world, 0)
    best = paper.run_from(screen.world, screen.starts, known["optimum"], 0)[1]
    for name in ("no-op", "random"):
        assert (best >= paper.run_from(screen.world, screen.starts, known[name], 0)[1] - 1e-4).all()
    generator = torch.Generator().manual_seed(0)
    act = known["optimum"](screen.starts)
    near = lambda observation: act + 0.05 * torch.randn(act.shape, generator=generator)
    assert (best >= paper.run_from(screen.world, screen.starts, near, 0)[1] - 1e-4).all()


@pytest.mark.parametrize(
    "table, name", [("cytokine", "kang18_ifnb_counts.h5ad"), ("joint", "a549_dex_scicar_multiome.h5mu")]
)
def test_quick_tables_of_real_cells(real_data, tmp_path, table, name):
    found = paper.reproduce(table, tmp_path, quick=True, folder=real_data(name).parent)
    assert {p.name for p in tmp_path.iterdir()} == {"paper.csv", "paper.md", "figures"}
    rows = found[found["arm"] != "perturbed"].set_index("method")
    assert rows.loc["no-op", "published_mse"] == 0 and np.isclose(
        rows.loc["no-op", "published_r"], 1, atol=1e-5
    )
    best = "optimum" if table == "cytokine" else "proportional"
    assert rows["return"].idxmax() == best and rows.loc[best, "published_mse"] > 0
    stopped, ppo = rows.loc["TRPO→PPO, target KL 0"], rows.loc["PPO"]
    assert stopped["published_mse"] < ppo["published_mse"] and stopped["published_r"] > ppo["published_r"]
    if table == "cytokine":
        assert stopped["distance"] > ppo["distance"] and stopped["regret"] > ppo["regret"]


def test_own_file_by_the_command(tmp_path, waddington):
    "A file under the Virtual Cell set's column names, as one table; without a table, or without the file, one line says so."
    key, control = paper.SCHEMAS[-1]
    path = made_up(tmp_path / "own.h5ad", key, control)
    said = waddington("reproduce-paper", "--data", path, "--out", tmp_path / "out")
    assert said[0] == 2 and "which table" in said[1]
    assert waddington("reproduce-paper", "--table", "crispr", "--data", tmp_path / "no.h5ad")[0] == 2
    code, said = waddington(
        "reproduce-paper", "--table", "crispr", "--quick", "--data", path, "--out", tmp_path / "out"
    )
    assert code == 0, said
    found = pd.read_csv(tmp_path / "out" / "paper.csv").set_index("method")
    assert (found["table"] == "crispr").all() and found.loc["no-op", "published_mse"].max() == 0
