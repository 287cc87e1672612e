"""Metrics equal the reference implementations; each test skips, saying so, where its package is not installed.

They come with `pip install cell-eval==0.8.2 scperteval==0.2 pertpy==1.0.3 statsmodels==0.14.6`.
"""

import subprocess
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import waddington_nb as wd
from waddington_nb import metrics

CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def populations(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(40, 12)), rng.normal(size=(30, 12)) * 1.3 + 0.5


def screen(seed: int = 0, genes: int = 60) -> tuple[ad.AnnData, ad.AnnData]:
    "Predicted and real log-normalised cells of control and four perturbations, named after the first four genes."
    rng = np.random.default_rng(seed)
    base = rng.gamma(2.0, 1.0, genes)
    effect = {
        f"gene{p}": np.where(rng.random(genes) < 0.3, rng.choice([0.2, 4.0], genes), 1) for p in range(4)
    }

    def cells(weaken: float, seed: int) -> ad.AnnData:
        rng, x, labels = np.random.default_rng(seed), [], []
        for label, fold in {"non-targeting": np.ones(genes), **effect}.items():
            x.append(rng.poisson(base * fold**weaken, (50, genes)) * rng.uniform(0.8, 1.2, (50, 1)))
            labels += [label] * 50
        obs = pd.DataFrame({"target_gene": labels}, index=[f"cell{i}" for i in range(len(labels))])
        var = pd.DataFrame(index=[f"gene{i}" for i in range(genes)])
        return ad.AnnData(np.log1p(np.concatenate(x)).astype("float32"), obs=obs, var=var)

    real, predicted = cells(1.0, 1), cells(0.6, 2)
    predicted.X[predicted.obs["target_gene"] == "non-targeting"] = real.X[
        real.obs["target_gene"] == "non-targeting"
    ]
    return predicted, real


def arms(cells: ad.AnnData) -> dict[str, np.ndarray]:
    "Cells × genes by label, double precision."
    return {
        label: np.asarray(cells[index].X, float)
        for label, index in cells.obs.groupby("target_gene").groups.items()
    }


# ---------------------------------------------------------------------------------------------------------- cell-eval


@pytest.fixture(scope="module")
def cell_eval_pair():
    types = pytest.importorskip("cell_eval._types", reason="cell-eval is not installed")
    predicted, real = screen()
    pair = types.PerturbationAnndataPair(
        real=real, pred=predicted, pert_col="target_gene", control_pert="non-targeting"
    )
    return pair, arms(predicted), arms(real)


def test_pseudobulk_scores_equal_cell_eval(cell_eval_pair):
    from cell_eval.metrics import _anndata as reference

    pair, predicted, real = cell_eval_pair
    control = real["non-targeting"].mean(axis=0)
    ours = {
        "mse": lambda p: metrics.mse(predicted[p].mean(axis=0), real[p].mean(axis=0)),
        "mae": lambda p: metrics.mae(predicted[p].mean(axis=0), real[p].mean(axis=0)),
        "pearson_delta": lambda p: metrics.pearson_delta(
            predicted[p].mean(axis=0), real[p].mean(axis=0), control
        ),
    }
    for name, score in ours.items():
        theirs = getattr(reference, name)(pair)
        assert len(theirs) == 4
        np.testing.assert_allclose([score(p) for p in theirs], list(theirs.values()), err_msg=name, **CLOSE)


@pytest.mark.parametrize("distance", ["l1", "l2", "cosine"])
def test_discrimination_equals_cell_eval(cell_eval_pair, distance):
    from cell_eval.metrics._anndata import discrimination_score

    pair, predicted, real = cell_eval_pair
    for shuffle in (
        np.arange(4),
        np.array([1, 0, 2, 3]),
        np.array([3, 2, 1, 0]),
    ):  # right and wrong predictions
        names = list(pair.perts)
        swapped = pair.pred.copy()
        rename = dict(zip(names, np.array(names)[shuffle], strict=True))
        swapped.obs["target_gene"] = pair.pred.obs["target_gene"].map(lambda p: rename.get(p, p)).astype(str)  # noqa: B023
        theirs = discrimination_score(
            type(pair)(real=pair.real, pred=swapped, pert_col="target_gene", control_pert="non-targeting"),
            metric=distance,
        )
        changes = [
            np.stack(
                [arms(cells)[p].mean(axis=0) - arms(cells)["non-targeting"].mean(axis=0) for p in theirs]
            )
            for cells in (swapped, pair.real)
        ]
        targets = {i: [list(pair.real.var_names).index(p)] for i, p in enumerate(theirs)}
        ours = metrics.discrimination_score(*changes, distance, left_out=targets)
        np.testing.assert_allclose(ours, list(theirs.values()), **CLOSE)


@pytest.fixture(scope="module")
def cell_eval_comparison(cell_eval_pair):
    from cell_eval._evaluator import _build_de_comparison

    return _build_de_comparison(anndata_pair=cell_eval_pair[0], num_threads=1)


def test_differential_expression_equals_pdex(cell_eval_pair, cell_eval_comparison):
    _, _, real = cell_eval_pair
    theirs = cell_eval_comparison.real.data.to_pandas()
    for p in [p for p in real if p != "non-targeting"]:
        rows = theirs[theirs["target"].astype(str) == p].set_index("feature")
        ours = metrics.differential_expression(real[p], real["non-targeting"])
        rows.index = rows.index.astype(str)
        rows = rows.loc[[f"gene{i}" for i in range(len(ours.fdr))]]
        np.testing.assert_allclose(ours.fdr, rows["fdr"], **CLOSE)
        np.testing.assert_allclose(ours.log2_fold_change, rows["log2_fold_change"], rtol=1e-6, atol=1e-6)


def test_gene_list_scores_equal_cell_eval(cell_eval_pair, cell_eval_comparison):
    from cell_eval.metrics import _de as reference

    _, predicted, real = cell_eval_pair
    overlap = reference.de_overlap_metric(cell_eval_comparison, k=None)
    auprc = reference.compute_pr_auc(cell_eval_comparison)
    found = lambda cells, p: metrics.differential_expression(cells[p], real["non-targeting"])
    pairs = {p: (found(predicted, p), found(real, p)) for p in overlap}
    np.testing.assert_allclose(
        [metrics.de_overlap(*pairs[p]) for p in overlap], list(overlap.values()), **CLOSE
    )
    assert 0 < min(overlap.values()) and min(overlap.values()) < 1
    ours = [metrics.classification_scores(*pairs[p])["auprc"] for p in auprc]
    np.testing.assert_allclose(ours, list(auprc.values()), **CLOSE)


def test_cell_eval_takes_our_pair_of_files_as_they_are(tmp_path):
    pytest.importorskip("cell_eval", reason="cell-eval is not installed")
    task = wd.Task(wd.haematopoiesis(seed=0), group_key="donor", hold_out_group="donor 1")
    cells = wd.mean_shift(task)
    predicted, real = wd.cell_eval_pair(task, cells, tmp_path)
    command = [
        sys.executable,
        "-m",
        "cell_eval",
        "run",
        "-ap",
        predicted,
        "-ar",
        real,
        "-o",
        tmp_path / "out",
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = pd.read_csv(tmp_path / "out" / "results.csv").set_index("perturbation")
    ours = wd.evaluate(task, cells, n_bootstrap=0).table.query("method == 'policy' and genes == 'all'")
    for metric in [
        "pearson_delta",
        "mse",
        "mae",
        *(f"discrimination_score_{d}" for d in metrics.DISCRIMINATION),
    ]:
        values = ours[ours["metric"] == metric].set_index("perturbation")["value"]
        np.testing.assert_allclose(
            values, theirs.loc[values.index, metric], err_msg=metric, rtol=1e-5, atol=1e-6
        )
    overlap = ours[ours["metric"] == "de_overlap"].set_index("perturbation")["value"]
    np.testing.assert_allclose(overlap, theirs.loc[overlap.index, "overlap_at_N"], **CLOSE)


# --------------------------------------------------------------------------------------------------------- scperteval


@pytest.fixture(scope="module")
def scperteval_metrics():
    return pytest.importorskip("scperteval.protocols.metrics", reason="scperteval is not installed")


def test_pseudobulk_scores_equal_scperteval(scperteval_metrics):
    real, predicted = (cells.mean(axis=0) for cells in populations())
    control = populations(1)[0].mean(axis=0)
    reference = scperteval_metrics
    np.testing.assert_allclose(metrics.mse(predicted, real), reference.mse(real, predicted, None), **CLOSE)
    np.testing.assert_allclose(
        metrics.r2_score(predicted, real), reference.r2(real, predicted, None), **CLOSE
    )
    np.testing.assert_allclose(
        metrics.pearson_r_means(predicted, real), reference.pearson(real, predicted, None), **CLOSE
    )
    np.testing.assert_allclose(
        metrics.pearson_delta(predicted, real, control),
        reference.pearson(real - control, predicted - control, None),
        **CLOSE,
    )


def test_energy_distance_equals_scperteval_up_to_its_bias_correction(scperteval_metrics):
    "scperteval leaves out the pairs of a cell with itself: its mean within n cells is n/(n-1) times ours."
    from sklearn.metrics import pairwise_distances

    x, y = populations()
    correction = sum(pairwise_distances(cells).mean() / (len(cells) - 1) for cells in (x, y))
    theirs = scperteval_metrics.energy_distance(x, y, None)
    np.testing.assert_allclose(metrics.energy_distance(x, y) - correction, theirs, **CLOSE)


def test_mmd_equals_scperteval_up_to_its_bias_correction(scperteval_metrics):
    "At its one bandwidth; within n cells its mean is (n·ours - 1)/(n-1), as a cell is 1 like itself."
    from sklearn.metrics import pairwise_distances
    from sklearn.metrics.pairwise import rbf_kernel

    x, y = populations()
    pooled = pairwise_distances(np.vstack([x, y]))
    gamma = 1 / (2 * np.median(pooled[~np.eye(len(pooled), dtype=bool)]) ** 2)
    correction = sum((1 - rbf_kernel(cells, gamma=gamma).mean()) / (len(cells) - 1) for cells in (x, y))
    theirs = scperteval_metrics.unbiased_mmd_median(x, y, None)
    np.testing.assert_allclose(metrics.mmd_rbf(x, y, np.array([gamma])) - correction, theirs, **CLOSE)


def test_discrimination_is_scperteval_rank_over_n(scperteval_metrics):
    "Normalised inverse rank is 1 - rank/(N-1); ours and cell-eval's 1 - rank/N."
    rng = np.random.default_rng(0)
    real = rng.normal(size=(15, 20))
    predicted = real + 2.5 * rng.normal(size=real.shape)
    theirs = scperteval_metrics.nir(list(real), list(predicted), None)
    ours = metrics.discrimination_score(predicted, real, "l2")
    np.testing.assert_allclose(1 - (1 - theirs) * 14 / 15, ours, **CLOSE)
    assert 0.1 < (ours < 1).mean() < 0.9


@pytest.mark.parametrize("better, perfect", [("higher", 1.0), ("lower", 0.0)])
def test_calibration_equals_scperteval(better, perfect):
    calibrators = pytest.importorskip("scperteval.calibrators", reason="scperteval is not installed")
    from types import SimpleNamespace

    rng = np.random.default_rng(0)
    negative = rng.uniform(-0.5, 0.0, 30) if better == "higher" else rng.uniform(2, 3, 30)
    positive = negative + rng.uniform(-1, 1, 30)
    kind = SimpleNamespace(better=better, perfect=perfect)
    both = [{"positive": p, "negative": n} for p, n in zip(positive, negative, strict=True)]
    drf = [calibrators.CALIBRATORS["drf"].per_pert(raws, kind) for raws in both]
    ours = metrics.dynamic_range_fraction(positive, negative, perfect)
    np.testing.assert_allclose(ours, drf, **CLOSE)
    bds = np.mean([calibrators.CALIBRATORS["bds"].per_pert(raws, kind) for raws in both])
    np.testing.assert_allclose(metrics.bound_discrimination_score(positive, negative, perfect), bds, **CLOSE)


# ------------------------------------------------------------------------------------------------------------- pertpy


def test_distances_equal_pertpy():
    distances = pytest.importorskip("pertpy.tools._distances._distances", reason="pertpy is not installed")
    x, y = populations()
    ours = {
        "Edistance": metrics.energy_distance(x, y),
        "MeanSquaredDistance": metrics.mse(x.mean(axis=0), y.mean(axis=0)),
        "MeanAbsoluteDistance": metrics.mae(x.mean(axis=0), y.mean(axis=0)),
        "PearsonDistance": 1 - metrics.pearson_r_means(x.mean(axis=0), y.mean(axis=0)),
        "R2ScoreDistance": 1 - metrics.r2_score(y.mean(axis=0), x.mean(axis=0)),
    }
    for name, value in ours.items():
        np.testing.assert_allclose(value, getattr(distances, name)()(x, y), err_msg=name, **CLOSE)
    squared = distances.Edistance()
    squared.cell_wise_metric = "sqeuclidean"
    np.testing.assert_allclose(metrics.energy_distance_squared(x, y), squared(x, y), **CLOSE)
    one_by_one = [distances.MMD()(x, y, kernel="rbf", gamma=gamma) for gamma in metrics.GAMMAS]
    np.testing.assert_allclose(metrics.mmd_rbf(x, y), np.mean(one_by_one), **CLOSE)


def test_sinkhorn_divergence_equals_ott():
    "pertpy's transport is OTT's; in double precision and converged it is the same number."
    pytest.importorskip("ott", reason="ott-jax, which pertpy uses, is not installed")
    import jax

    jax.config.update("jax_enable_x64", True)
    from ott.geometry.pointcloud import PointCloud
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    x, y = populations()
    epsilon = 0.05 * np.square(x[:, None] - y).sum(axis=-1).mean()
    solver = Sinkhorn(threshold=1e-10, max_iterations=20_000)
    cost = lambda a, b: float(solver(LinearProblem(PointCloud(a, b, epsilon=epsilon))).reg_ot_cost)
    theirs = cost(x, y) - (cost(x, x) + cost(y, y)) / 2
    np.testing.assert_allclose(metrics.sinkhorn_divergence(x, y), theirs, **CLOSE)
