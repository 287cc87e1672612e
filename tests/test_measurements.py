"What X holds, what `var` says, which genes respond, and the files that people have."

import gzip
import shutil

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

from waddington_nb import DataError, Task
from waddington_nb.measurements import guess_scale, noted_base, read


def cells(n: int = 240, genes: int = 150, depth: float = 400, seed: int = 0) -> ad.AnnData:
    "Counts of control cells and of a drug that moves forty genes; depths differ several-fold."
    rng = np.random.default_rng(seed)
    rate = rng.gamma(0.5, 1, genes)
    change = np.where(np.arange(genes) < 20, 4.0, np.where(np.arange(genes) < 40, 0.25, 1.0))
    drug = np.arange(n) % 2 == 1
    rate = rate / rate.sum() * depth * rng.lognormal(0, 0.5, n)[:, None] * np.where(drug[:, None], change, 1)
    obs = pd.DataFrame({"p": np.where(drug, "drug", "control")}, index=[f"c{i}" for i in range(n)])
    X = rng.poisson(rate).astype("float32")
    X[X.sum(axis=1) == 0, 0] = 1
    return ad.AnnData(X, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(genes)]))


def fractions(counts: np.ndarray, how: str, seed: int = 1) -> np.ndarray:
    "Counts as correction leaves them: ambient RNA taken off, or reads shared between genes."
    if how == "ambient":
        soup = counts.mean(axis=0) / counts.sum(axis=1).mean()
        return np.maximum(counts - 0.1 * counts.sum(axis=1, keepdims=True) * soup, 0) * (counts > 0)
    return counts * np.random.default_rng(seed).uniform(0.5, 1, counts.shape)


def normal(x: np.ndarray, total: float = 1e4) -> np.ndarray:
    return x / x.sum(axis=1, keepdims=True) * total


def change(task: Task) -> pd.Series:
    "Mean change of the genes of a task."
    drug = task.perturbation == "drug"
    return pd.Series(task.x[drug].mean(axis=0) - task.x[~drug].mean(axis=0), index=task.genes)


def task(X, like: ad.AnnData | None = None, uns=None, **options) -> Task:
    like = cells() if like is None else like
    return Task(
        ad.AnnData(np.asarray(X, "float32"), obs=like.obs, var=like.var, uns=uns or {}), "p", **options
    )


# --------------------------------------------------------------------------------------------- the scale of X


@pytest.mark.parametrize("depth", [100, 400, 3000])
@pytest.mark.parametrize("how", ["counts", "ambient", "shared"])
@pytest.mark.parametrize("base", [np.e, 2.0, 10.0])
@pytest.mark.parametrize("total", [1e4, 1e6])
def test_logarithms_by_any_base_are_read_from_the_values(depth, how, base, total):
    counts = cells(depth=depth)
    x = counts.X if how == "counts" else fractions(counts.X, how)
    t = task(np.log1p(normal(x, total)) / np.log(base), counts)
    assert t.x_kind == "log1p"
    right = np.log1p(normal(x, total))[:, [int(g[1:]) for g in t.genes]]
    assert np.abs(t.x - right).max() < 1e-4


@pytest.mark.parametrize(
    "noted",
    [{}, {"base": None}, {"base": 2}, {"base": "2"}, {"base": np.array([2.0])}, {"base": []}, {"base": b"2"}, {"base": "None"},
     {"base": np.array(["e"])}, {"base": "ten"}, {"base": np.array([], float)}, {"base": [[2]]}, "text"],
)  # fmt: skip
def test_notes_of_the_base_in_any_form(noted):
    counts = cells()
    right = task(counts.X).x
    for base in (np.e, 2.0):
        t = task(np.log1p(normal(counts.X)) / np.log(base), uns={"log1p": noted})
        assert np.abs(t.x - right).max() < 1e-4
        wrong = {np.e: {2}, 2.0: {None}}[base]
        if "ten" not in str(noted):
            told = any("the values are followed" in note for note in t.notes)
            assert told == (noted_base({"log1p": noted}) in wrong)


def test_a_base_that_is_none_and_that_the_values_do_not_tell():
    x = np.log1p(normal(fractions(cells().X, "shared")))[:, ::2]
    part = cells()[:, ::2]
    with pytest.raises(DataError, match="'ten', no base of a logarithm"):
        task(x, part, uns={"log1p": {"base": "ten"}})
    assert np.allclose(task(x / np.log(2), part, uns={"log1p": {"base": "2"}}).x, task(x, part).x, atol=1e-5)


@pytest.mark.parametrize("how", ["ambient", "shared"])
@pytest.mark.parametrize("depth", [60, 150, 300, 1000, 5000])
def test_fractional_counts_are_linear_or_refused(how, depth):
    counts = cells(depth=depth)
    x = fractions(counts.X, how)
    right = change(task(counts.X, counts))
    try:
        read_as = task(x, counts)
    except DataError as error:
        assert "--x-kind" in str(error) and "\n" not in str(error) and x.max() <= 20
        read_as = task(x, counts, x_kind="linear")
    assert read_as.x_kind == "linear"
    assert np.corrcoef(*right.align(change(read_as), join="inner"))[0, 1] > 0.95


def test_the_fractional_counts_of_the_issue():
    rng = np.random.default_rng(2)
    mu = rng.gamma(0.5, 1, 200)
    fold = np.where(np.arange(200) < 20, 4, np.where(np.arange(200) < 40, 0.25, 1))
    drug = np.arange(240) >= 120
    rate = rng.lognormal(0, 0.5, 240)[:, None] * mu / mu.sum() * 150 * np.where(drug[:, None], fold, 1)
    counts = np.minimum(rng.poisson(rate), 20).astype("float32")
    like = ad.AnnData(
        counts,
        obs=pd.DataFrame({"p": np.where(drug, "drug", "control")}, index=[f"c{i}" for i in range(240)]),
    )
    like.var_names = [f"G{i}" for i in range(200)]
    soup = fractions(counts, "ambient")
    assert soup.max() <= 20 and guess_scale(soup).kind == "linear"
    assert np.corrcoef(*change(task(counts, like)).align(change(task(soup, like)), join="inner"))[0, 1] > 0.99


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda x: np.sqrt(x), "a square root"),
        (lambda x: np.sqrt(normal(x)), "a square root"),
        (lambda x: np.sqrt(normal(fractions(x, "shared"))), "a square root"),
        (lambda x: np.log1p(np.log1p(normal(x))), "a logarithm taken twice"),
        (lambda x: np.log1p(np.log1p(normal(fractions(x, "ambient")))), "a logarithm taken twice"),
        (lambda x: (np.log1p(normal(x)) - np.log1p(normal(x)).mean(0)) / (np.log1p(normal(x)).std(0) + 1e-6), "scaled or centred"),
        (lambda x: np.log1p(normal(x)) - np.log1p(normal(x)).mean(0), "scaled or centred"),
        (lambda x: np.log1p(normal(x)) / (np.log1p(normal(x)).max(0) + 1e-9), "scaled genes"),
    ],
)  # fmt: skip
def test_transformed_x_is_refused_and_the_counts_are_named(spoil, said):
    counts = cells()
    bad = ad.AnnData(np.asarray(spoil(counts.X), "float32"), obs=counts.obs, var=counts.var)
    for place in ("counts", "spliced"):
        with_layer = bad.copy()
        with_layer.layers[place] = counts.X
        with pytest.raises(DataError, match=said) as error:
            Task(with_layer, "p")
        assert f"--layer {place}" in str(error.value) and "\n" not in str(error.value)
        assert np.array_equal(Task(with_layer, "p", layer=place).x, task(counts.X).x)
    bad.raw = ad.AnnData(np.log1p(normal(counts.X)), obs=counts.obs, var=counts.var)
    with pytest.raises(DataError, match="raw holds log-normalised values: say layer='raw'"):
        Task(bad, "p")
    assert np.allclose(Task(bad, "p", layer="raw").x, task(counts.X).x, atol=1e-4)
    with pytest.raises(DataError, match=said):
        task(bad.X)


def test_linear_values_that_are_small():
    counts = cells()
    for total in (1.0, 15.0, 1e4):
        t = task(normal(counts.X, total))
        assert t.x_kind == "linear" and np.abs(t.x - task(counts.X).x).max() < 1e-3


def test_continuous_measurements():
    rng, like = np.random.default_rng(0), cells(genes=30)
    signed = rng.normal(0, 2, (240, 30))
    with pytest.raises(DataError, match="x_kind='continuous'"):
        task(signed, like)
    t = task(signed, like, x_kind="continuous")
    assert np.allclose(t.x, signed, atol=1e-6) and any("on its scale" in note for note in t.notes)
    for x in (np.arcsinh(rng.gamma(1, 20, (240, 30)) / 5), rng.normal(6, 1, (240, 30))):
        t = task(x, like)
        assert t.x_kind == "continuous" and np.allclose(t.x, x, atol=1e-5)
        assert any("taken as it is" in note for note in t.notes)
    images = ad.AnnData(rng.normal(6, 1, (240, 400)).astype("float32"), obs=like.obs)
    images.var_names = [f"f{i}" for i in range(400)]
    assert Task(images, "p").x_kind == "continuous"


def test_a_stated_kind_is_held_against_the_values():
    counts = cells()
    for x, kind, said in [(counts.X, "log1p", "looks like counts"), (np.log1p(normal(counts.X)), "linear", "looks like log1p"),
                          (normal(counts.X), "counts", "holds fractions")]:  # fmt: skip
        with pytest.raises(DataError, match=said):
            task(x, x_kind=kind)


# --------------------------------------------------------------------------------------------------- what var says


@pytest.mark.parametrize(
    "other", ["CRISPR Guide Capture", "Antibody Capture", "Custom", "Multiplexing Capture", "Peaks"]
)
def test_features_that_are_no_genes(other):
    counts = cells()
    guide = np.where(counts.obs["p"] == "drug", 150.0, 0.0)[:, None].astype("float32")
    both = ad.AnnData(
        np.hstack([counts.X, guide]), obs=counts.obs, var=pd.DataFrame(index=[*counts.var_names, "drug_sg1"])
    )
    both.var["feature_types"] = pd.Categorical(["Gene Expression"] * 150 + [other])
    t = Task(both, "p")
    assert np.array_equal(t.x, task(counts.X).x) and any(f"1 of {other!r}" in note for note in t.notes)
    both.var["feature_types"] = ["Gene"] * 150 + [other]
    assert "drug_sg1" not in Task(both, "p").genes


@pytest.mark.parametrize("column", ["gene_name", "gene_symbols", "feature_name", "my_names"])
@pytest.mark.parametrize("index", ["ENSG{:011d}", "ENSMUSG{:011d}.4", "hg38_G{}"])
def test_targets_are_found_through_the_column_of_symbols(column, index):
    counts = cells()
    labels = np.where(counts.obs["p"] == "drug", np.resize(["G3", "G5+G7", "G9_g1"], 240), "control")
    named = ad.AnnData(counts.X, obs=pd.DataFrame({"p": labels}, index=counts.obs_names), var=counts.var)
    plain = Task(named, "p", n_genes=20)
    named.var_names = [index.format(i) for i in range(150)]
    named.var[column] = [f"G{i}" for i in range(150)]
    t = Task(named, "p", n_genes=20)
    assert {p: t.symbols[g] for p, g in t.targets.items()} == {
        p: plain.symbols[g] for p, g in plain.targets.items()
    }
    assert len(t.targets) == 4 and any("find their genes through" in note for note in t.notes)


# ------------------------------------------------------------------------------------------------ which genes respond


@pytest.mark.parametrize("lonely", [0, 60])
def test_arms_of_one_cell_have_no_vote(lonely):
    rng, genes = np.random.default_rng(16), 600
    rate = rng.gamma(0.5, 1, genes) + 0.05
    responders = np.flatnonzero((rate > 1) & (rate < 4))[:6]
    fold = np.ones(genes)
    fold[responders] = 0.5
    labels = ["control"] * 200 + ["P0"] * 80 + ["P1"] * 80 + [f"S{i}" for i in range(lonely)]
    X = np.random.default_rng(1).poisson([rate * (fold if label in ("P0", "P1") else 1) for label in labels])
    found = ad.AnnData(
        X.astype("float32"), obs=pd.DataFrame({"p": labels}, index=[f"c{i}" for i in range(len(labels))])
    )
    found.var_names = [f"G{i}" for i in range(genes)]
    t = Task(found, "p", hold_out_perturbation="P1", n_genes=300)
    kept = {int(g[1:]) for g in t.genes}
    assert set(responders) <= kept
    from waddington_nb.tasks import responding_genes

    train = t.perturbation[t.is_train]
    first = {
        int(t.genes[i][1:])
        for i in responding_genes(sparse.csr_matrix(t.x[t.is_train]), train, "control", 6, min_cells=10)
    }
    assert len(first & set(responders)) >= 5


# ------------------------------------------------------------------------------------------------------------- files


def ten_x(folder, counts: ad.AnnData, packed: bool, prefix: str = "") -> None:
    "A 10x matrix folder."
    from scipy.io import mmwrite

    folder.mkdir()
    mmwrite(folder / "matrix.mtx", sparse.csr_matrix(counts.X).T.astype(int))
    table = pd.DataFrame({"id": counts.var_names, "name": counts.var_names, "type": "Gene Expression"})
    table.to_csv(folder / "features.tsv", sep="\t", header=False, index=False)
    pd.Series(counts.obs_names).to_csv(folder / "barcodes.tsv", header=False, index=False)
    for name in ("matrix.mtx", "features.tsv", "barcodes.tsv"):
        target = folder / (prefix + name + ".gz" * packed)
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        target.write_bytes(gzip.compress(content) if packed else content)


@pytest.mark.parametrize("packed, prefix", [(True, ""), (False, ""), (True, "GSM1_"), (False, "GSM1_")])
def test_matrix_folders(tmp_path, packed, prefix):
    counts = cells(n=30, genes=20)
    ten_x(tmp_path / "mtx", counts, packed, prefix)
    assert np.array_equal(read(tmp_path / "mtx").to_df().to_numpy(), counts.X)


def test_files_that_people_have(tmp_path):
    counts = cells(n=30, genes=20)
    counts.write_h5ad(tmp_path / "x.h5ad")
    packed = gzip.compress((tmp_path / "x.h5ad").read_bytes())
    (tmp_path / "x.h5ad.gz").write_bytes(packed)
    counts.write_zarr(tmp_path / "x.zarr")
    with h5py.File(tmp_path / "x.loom", "w") as file:
        file["matrix"] = counts.X.T
        file["row_attrs/Gene"] = np.array(counts.var_names, "S")
        file["col_attrs/CellID"], file["col_attrs/p"] = (
            np.array(counts.obs_names, "S"),
            np.array(counts.obs["p"], "S"),
        )
    (tmp_path / "x.loom.gz").write_bytes(gzip.compress((tmp_path / "x.loom").read_bytes()))
    X = sparse.csr_matrix(counts.X)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("matrix")
        for name, value in {
            "data": X.data.astype(int),
            "indices": X.indices,
            "indptr": X.indptr,
            "shape": [20, 30],
        }.items():
            group[name] = value
        group["barcodes"] = np.array(counts.obs_names, "S")
        for name, value in {
            "id": counts.var_names,
            "name": counts.var_names,
            "feature_type": ["Gene Expression"] * 20,
            "genome": ["x"] * 20,
        }.items():
            group[f"features/{name}"] = np.array(list(value), "S")
    for name in ("x.h5ad", "x.h5ad.gz", "x.zarr", "x.loom", "x.loom.gz", "x.h5"):
        found = read(tmp_path / name)
        assert np.array_equal(found.to_df().to_numpy(), counts.X), name
        assert name == "x.h5" or list(found.obs["p"]) == list(counts.obs["p"])
    for name, content in {
        "a.csv": b"x",
        "b.rds": b"x",
        "c.txt.gz": packed[:9],
        "d.zip": b"PK",
        "e.mtx": b"%%",
        "f.h5seurat": b"x",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="convert it") as error:
            read(tmp_path / name)
        assert "\n" not in str(error.value) and name in str(error.value)
    for name, said in {"folder": "is a folder", "nowhere": "no file"}.items():
        if name == "folder":
            (tmp_path / name).mkdir()
            shutil.copy(tmp_path / "x.h5ad", tmp_path / name)
        with pytest.raises(DataError, match=said):
            read(tmp_path / name)
    with pytest.raises(DataError, match="give one of its files, as 'x.h5ad'"):
        read(tmp_path / "folder")


def test_scanpy_files_need_nothing_said():
    counts = cells()
    usual = counts.copy()
    sc.pp.normalize_total(usual, target_sum=1e4)
    sc.pp.log1p(usual)
    assert np.allclose(Task(usual, "p").x, task(counts.X).x, atol=1e-4) and not Task(usual, "p").notes


def test_predictions_of_signed_measurements_stay_on_their_scale():
    "Mass cytometry with values around minus one, where x / (1 + x) has no bound: 99.9 was the energy distance once."
    from conftest import made_up

    from waddington_nb import fit
    from waddington_nb.metrics import energy_distance

    signed = made_up()
    signed.X = np.arcsinh((signed.X - 3) / 2).astype("float32")
    t = Task(signed, group_key="cell_type", hold_out_group="NK", x_kind="continuous")
    predicted = fit(t, stages=[], n_latent=5).predict(t).X
    real, start = t.x[t.is_truth], t.x[t.is_start]
    assert np.abs(predicted).max() < 2 * np.abs(t.x).max()
    assert energy_distance(predicted, real) < 0.8 * energy_distance(start, real)


def test_half_precision_is_read_as_single():
    counts = np.random.default_rng(0).poisson(2, (60, 30)).astype("float64")
    x = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4).astype("float16")
    assert guess_scale(x).kind == "log1p"
