"What a file looks like does not change what is predicted: storage, container, order of cells, genes and categories."

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from scipy import sparse

import waddington_nb as wd

LABELS, GROUPS = ["control", "A", "B", "A+B"], ["T", "NK", "B cell"]


def study(seed: int = 0, cells: int = 10, genes: int = 30) -> ad.AnnData:
    "Counts of three groups under three perturbations, `cells` of each."
    rng, n = np.random.default_rng(seed), 12 * cells
    obs = pd.DataFrame({"p": np.resize(np.repeat(LABELS, cells), n), "g": np.repeat(GROUPS, 4 * cells)})
    obs.index = [f"c{i}" for i in range(n)]
    shift = rng.normal(0, 0.6, (2, genes))
    done = np.stack([obs["p"].str.contains(x, regex=False) for x in "AB"], 1) @ shift
    rate = rng.gamma(1.0, 3, (3, genes))[np.repeat([0, 1, 2], 4 * cells)] * np.exp(done)
    X = rng.poisson(rate * rng.lognormal(0, 0.3, (n, 1))).astype("float32")
    return ad.AnnData(X, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(genes)]))


STUDY = study()


def predicted(data, **held) -> pd.DataFrame:
    "Predicted expression in canonical order: cells by name, genes by name."
    task = wd.Task(data, "p", group_key="g", min_cells=5, n_genes=25, **held)
    cells = wd.fit(task, stages=[], seed=0, n_latent=6).predict(task)
    table = cells.to_df()
    table.index = cells.obs["source_cell"].to_numpy(str) + "/" + cells.obs["perturbation"].to_numpy(str)
    return table.sort_index(axis=0).sort_index(axis=1)


HELD = {"hold_out_group": "NK", "hold_out_perturbation": "A+B"}
RIGHT = None


def right() -> pd.DataFrame:
    "What the plain file predicts, once."
    global RIGHT
    RIGHT = predicted(STUDY.copy(), **HELD) if RIGHT is None else RIGHT
    return RIGHT


DTYPES = ["float32", "float64", "int16", "int32", "int64", "uint8", "uint16", ">f4"]
MATRICES = {"dense": np.asarray, "fortran": np.asfortranarray, "csr": sparse.csr_matrix, "csc": sparse.csc_matrix,
            "array": sparse.csr_array}  # fmt: skip
COLUMNS = {
    "object": lambda column, order: column.astype(object),
    "string": lambda column, order: column.astype("string"),
    "category": lambda column, order: pd.Categorical(column, order),
    "unused": lambda column, order: pd.Categorical(column, [*order, "nobody"], ordered=True),
}


def stored(cells: ad.AnnData, container: str, folder) -> object:
    "The same cells as an AnnData, a view of one, or a file."
    if container == "view":
        more = ad.concat([cells, cells[:3]], index_unique="-")
        more.obs_names = [
            name.rsplit("-", 1)[0] if i < cells.n_obs else f"x{i}" for i, name in enumerate(more.obs_names)
        ]
        return more[: cells.n_obs]
    if container == "AnnData":
        return cells
    path = folder / f"cells.{container}"
    if container == "h5ad":
        cells.write_h5ad(path)
    else:
        import mudata

        mudata.MuData({"rna": cells}).write_h5mu(path)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stored")


@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(
    rows=st.permutations(range(STUDY.n_obs)),
    columns=st.permutations(range(STUDY.n_vars)),
    dtype=st.sampled_from(DTYPES),
    matrix=st.sampled_from(sorted(MATRICES)),
    column=st.sampled_from(sorted(COLUMNS)),
    order=st.tuples(st.permutations(LABELS), st.permutations(GROUPS)),
    container=st.sampled_from(["AnnData", "view", "h5ad", "h5mu"]),
    turned=st.booleans(),
)
def test_predictions_do_not_depend_on_how_cells_are_stored(
    folder, rows, columns, dtype, matrix, column, order, container, turned
):
    cells = STUDY[list(rows), list(columns)].copy()
    names = ["B+A" if turned and name == "A+B" else name for name in order[0]]
    cells.obs["p"] = COLUMNS[column](cells.obs["p"].replace("A+B", "B+A" if turned else "A+B"), names)
    cells.obs["g"] = COLUMNS[column](cells.obs["g"], list(order[1]))
    cells.X = MATRICES[matrix](cells.X.astype(dtype))
    found = predicted(stored(cells, container, folder), **HELD)
    assert found.index.equals(right().index) and found.columns.equals(right().columns)
    assert np.abs(found.to_numpy() - right().to_numpy()).max() < 1e-6


def test_renamed_labels_predict_the_same():
    other = STUDY.copy()
    other.obs["p"] = other.obs["p"].map({"control": "zero", "A": "zz", "B": "aa", "A+B": "aa+zz"})
    other.obs["g"] = other.obs["g"].map({"T": "z", "NK": "y", "B cell": "x"})
    task = wd.Task(
        other,
        "p",
        "zero",
        group_key="g",
        min_cells=5,
        n_genes=25,
        hold_out_group="y",
        hold_out_perturbation="aa+zz",
    )
    cells = wd.fit(task, stages=[], seed=0, n_latent=6).predict(task)
    found = (
        cells.to_df().set_axis(cells.obs["source_cell"].to_numpy(str)).sort_index(axis=0).sort_index(axis=1)
    )
    assert np.abs(found.to_numpy() - right().to_numpy()).max() < 1e-3


def trained_mean(names: dict[str, str], seed: int) -> np.ndarray:
    "Mean predicted expression after training, gene by gene, of a study whose labels have other names."
    other = STUDY.copy()
    for column in ("p", "g"):
        other.obs[column] = other.obs[column].map(
            lambda label: "+".join(names[part] for part in label.split("+"))
        )
    held = {"hold_out_group": names["NK"], "hold_out_perturbation": f"{names['A']}+{names['B']}"}
    task = wd.Task(other, "p", names["control"], group_key="g", min_cells=5, n_genes=25, **held)
    stages = [wd.TRPO(steps=3000), wd.PPO(steps=3000)]
    cells = wd.fit(task, stages, seed=seed, n_latent=6, init="random").predict(task)
    return cells.to_df().sort_index(axis=1).mean().to_numpy()


def test_renamed_labels_train_to_the_same_within_seeds():
    same = {name: name for name in ("control", "A", "B", "T", "NK", "B cell")}
    other = {"control": "zero", "A": "zz", "B": "aa", "T": "z", "NK": "y", "B cell": "x"}
    first, *seeds = (trained_mean(same, seed) for seed in range(3))
    spread = max(np.abs(first - another).max() for another in seeds)
    assert np.abs(trained_mean(other, 0) - first).max() <= max(2 * spread, 1e-3)
