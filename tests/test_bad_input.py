"""Bad input gets one clear line and exit code 2, and nothing is written."""

import json

import anndata as ad
import numpy as np
import pytest
from conftest import arguments, made_up
from scipy import sparse

KEYS = ["--perturbation-key", "perturbation", "--control", "control"]


def refused(waddington, out, said, *args):
    code, stderr = waddington(*args, "--out", out)
    assert code == 2, stderr
    assert stderr.count("\n") == 0 and stderr.startswith("waddington: ") and said in stderr, stderr
    assert not out.exists() or not any(out.iterdir())


@pytest.mark.parametrize(
    "said, options",
    [
        ("did you mean 'perturbation'", ["--perturbation-key", "pertubation", "--control", "control"]),
        (
            "control 'ctrl' is not in obs['perturbation']",
            ["--perturbation-key", "perturbation", "--control", "ctrl"],
        ),
        ("did you mean 'cell_type'", [*KEYS, "--group-key", "celltype", "--hold-out", "NK"]),
        ("hold_out_group 'nk' is not in", [*KEYS, "--group-key", "cell_type", "--hold-out", "nk"]),
        ("add group_key", [*KEYS, "--hold-out", "NK"]),
        ("'IFNG' is not in the perturbed cells", [*KEYS, "--hold-out-perturbation", "IFNG"]),
        ("nothing is left to learn from", [*KEYS, "--hold-out-perturbation", "IFNB"]),
        ("perturbation 'IFNG' is not in", [*KEYS, "--perturbation", "IFNG"]),
        ("no perturbed cells", [*KEYS, "--perturbation", "control"]),
        ("41 needed", [*KEYS, "--group-key", "cell_type", "--hold-out", "NK", "--min-cells", "41"]),
        ("time_key 'hours' is not a column", [*KEYS, "--time-key", "hours"]),
        ("not finite numbers", [*KEYS, "--time-key", "cell_type"]),
        ("x_kind is 'log1p' but X looks like counts", [*KEYS, "--x-kind", "log1p"]),
        ("at least 1 dimension", [*KEYS, "--latent", "0"]),
        ("--perturbation-key", ["--control", "control"]),
        ("invalid choice", [*KEYS, "--stages", "sac"]),
        ("device 'abacus' is not available", [*KEYS, "--device", "abacus"]),
        ("argument --seed: '-1' is not a whole number", [*KEYS, "--seed=-1"]),
        ("device 'meta' cannot train", [*KEYS, "--device", "meta"]),
        ("group_key 'perturbation' is the perturbation_key too", [*KEYS, "--group-key", "perturbation"]),
        ("argument --steps: '0' is not a whole number", [*KEYS, "--steps", "0"]),
    ],
)
def test_options(waddington, cells_file, tmp_path, said, options):
    refused(waddington, tmp_path / "out", said, "run", cells_file, *options)


@pytest.mark.parametrize(
    "said, damage",
    [
        ("NaN or infinite", lambda a: a.X.__setitem__((3, 4), np.nan)),
        ("NaN or infinite", lambda a: a.X.__setitem__((3, 4), np.inf)),
        ("negative values", lambda a: a.X.__setitem__((3, 4), -1)),
        ("obs_names are not unique", lambda a: setattr(a, "obs_names", ["cell"] * a.n_obs)),
        ("var_names are not unique", lambda a: setattr(a, "var_names", ["gene"] * a.n_vars)),
        ("no perturbed cells", lambda a: a.obs.__setitem__("perturbation", "control")),
        ("is all there is", lambda a: a.obs.__setitem__("cell_type", "NK")),
        (
            "in single precision",
            lambda a: setattr(a, "X", np.where(np.arange(a.n_vars) == 3, 1e39, a.X.astype(float))),
        ),
        ("only 0 genes vary", lambda a: setattr(a, "X", np.ones_like(a.X))),
        ("not finite numbers", lambda a: None),
        ("no expression in any", lambda a: a.X.__setitem__(slice(None), 0)),
        ("adata.layers[...], there is none", lambda a: setattr(a, "X", None)),
        (
            "'NK' has no perturbed cells to predict",
            lambda a: a.obs.__setitem__(
                "perturbation", np.where(a.obs["cell_type"] == "NK", "control", a.obs["perturbation"])
            ),
        ),
    ],
)
def test_cells(waddington, cells, tmp_path, said, damage):
    damage(cells)
    cells.obs["hours"] = np.inf
    cells.write_h5ad(tmp_path / "bad.h5ad")
    options = [*KEYS, "--group-key", "cell_type", "--hold-out", "NK"]
    options += ["--time-key", "hours"] if said == "not finite numbers" else []
    refused(waddington, tmp_path / "out", said, "run", tmp_path / "bad.h5ad", *options)


def test_files(waddington, cells_file, tmp_path):
    whole = cells_file.read_bytes()
    for name, content, said in [
        ("text.h5ad", b"gene,cell\n1,2\n", "not an HDF5 file"),
        ("empty.h5ad", b"", "not an HDF5 file"),
        ("half.h5ad", whole[: len(whole) // 2], "truncated"),
        ("most.h5ad", whole[:-200], "cannot read"),
    ]:
        (tmp_path / name).write_bytes(content)
        refused(waddington, tmp_path / "out", said, "run", tmp_path / name, *KEYS)
    refused(waddington, tmp_path / "out", "no file", "run", tmp_path / "nowhere.h5ad", *KEYS)


def test_modality_is_named(waddington, tmp_path, cells):
    import mudata

    mudata.MuData({"prot": cells}).write_h5mu(tmp_path / "x.h5mu")
    refused(waddington, tmp_path / "out", "no modality 'rna'", "run", tmp_path / "x.h5mu", *KEYS)


@pytest.mark.parametrize("layout", ["csr", "csc", "dense", "float64", "int32"])
def test_layouts_that_must_work(tmp_path, cells, layout):
    from waddington_nb import Task, read

    reference = Task(cells.copy(), group_key="cell_type", hold_out_group="NK").x
    convert = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.asarray}
    cells.X = convert[layout](cells.X) if layout in convert else cells.X.astype(layout)
    cells.write_h5ad(tmp_path / "x.h5ad")
    assert (Task(read(tmp_path / "x.h5ad"), group_key="cell_type", hold_out_group="NK").x == reference).all()


@pytest.mark.parametrize(
    "control, relabel",
    [
        ("False", {"control": False, "IFNB": True}),
        ("0", {"control": 0, "IFNB": 24}),
        ("0", {"control": 0.0, "IFNB": 6.0}),
    ],
)
def test_labels_that_must_work(waddington, tmp_path, cells, control, relabel):
    cells.obs["perturbation"] = cells.obs["perturbation"].map(relabel)
    cells.obs["cell_type"] = cells.obs["cell_type"].astype("category").cat.add_categories("unused")
    cells.X[5] = 0  # a cell without counts is left out
    cells.X[:, 7] = 0  # so is a gene
    cells.write_h5ad(tmp_path / "x.h5ad")
    arguments_ = arguments(tmp_path / "x.h5ad", tmp_path / "out")
    arguments_[arguments_.index("--control") + 1] = control
    assert waddington(*arguments_)[0] == 0
    predicted = ad.read_h5ad(tmp_path / "out" / "predicted.h5ad")
    assert "gene7" not in predicted.var_names and set(predicted.obs["cell_type"]) == {"NK"}
    assert "1 cells without any expression were left out" in (tmp_path / "out" / "report.html").read_text()


def test_files_of_older_versions_work(waddington, cells_file, tmp_path):
    "Before anndata 0.8 the root carried no encoding."
    import h5py

    with h5py.File(cells_file, "r+") as file:
        for name in list(file.attrs):
            del file.attrs[name]
    assert waddington(*arguments(cells_file, tmp_path / "out"))[0] == 0


def test_few_genes_and_equal_cells_work(waddington, tmp_path, cells):
    cells[:, [0, 1, 30]].write_h5ad(tmp_path / "few.h5ad")
    assert waddington(*arguments(tmp_path / "few.h5ad", tmp_path / "few"))[0] == 0
    cells.X[: cells.n_obs // 2] = cells.X[0]
    cells.write_h5ad(tmp_path / "equal.h5ad")
    assert waddington(*arguments(tmp_path / "equal.h5ad", tmp_path / "equal"))[0] == 0


def test_one_latent_dimension_works(waddington, cells_file, tmp_path):
    options = arguments(cells_file, tmp_path / "out")
    options[options.index("--latent") + 1] = "1"
    assert waddington(*options)[0] == 0


def test_output_folders(waddington, cells_file, tmp_path):
    out = tmp_path / "out"
    assert waddington(*arguments(cells_file, out))[0] == 0
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    code, said = waddington(*arguments(cells_file, out, "--seed", 5))
    assert code == 2 and "seed was 0, now 5" in said
    made_up(seed=8).write_h5ad(tmp_path / "other.h5ad")
    code, said = waddington(*arguments(tmp_path / "other.h5ad", out))
    assert code == 2 and "cells was" in said
    assert before == {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}

    (tmp_path / "taken").write_text("mine")
    code, said = waddington(*arguments(cells_file, tmp_path / "taken"))
    assert code == 2 and "is a file" in said
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "config.json").write_text("[]")
    code, said = waddington(*arguments(cells_file, tmp_path / "list"))
    assert code == 2 and "something else" in said
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "report.html").write_text("mine")
    code, said = waddington(*arguments(cells_file, tmp_path / "notes"))
    assert (
        code == 2 and "something else" in said and (tmp_path / "notes" / "report.html").read_text() == "mine"
    )
    code, said = waddington(*arguments(cells_file, "/proc/out"))
    assert code == 2 and "cannot write" in said
    config = json.loads((out / "config.json").read_text())
    assert config["seed"] == 0 and config["hold_out_group"] == "NK"


# ------------------------------------------------------------------------------------------------- names and doses


def relabelled(cells: ad.AnnData, names: list[str]) -> ad.AnnData:
    "The cells with their perturbed ones called `names` in turn, group by group alike."
    treated = np.flatnonzero(cells.obs["perturbation"] != "control")
    cells.obs["perturbation"] = cells.obs["perturbation"].astype(str)
    cells.obs.iloc[treated, cells.obs.columns.get_loc("perturbation")] = np.resize(names, len(treated))
    return cells


@pytest.mark.parametrize("joint", ["_", "|", ",", ";", "&", "-", "/"])
def test_combinations_joined_otherwise(waddington, cells, tmp_path, joint):
    relabelled(cells, ["A", "B", f"A{joint}B"]).write_h5ad(tmp_path / "x.h5ad")
    refused(waddington, tmp_path / "out", "rename it 'A+B'", "run", tmp_path / "x.h5ad", *KEYS)


@pytest.mark.parametrize(
    "written, read",
    [("A + B", "A+B"), ("B+A", "A+B"), ("A+control", "A"), ("control+B", "B"), ("A+ctrl", "A"), ("A+A", "A")],
)
def test_combinations_however_they_are_written(cells, written, read):
    from waddington_nb import Task

    task = Task(relabelled(cells, ["A", "B", "C", written]))
    assert set(task.perturbation) == {"control", "A", "B", "C", read}
    assert any(repr(written) in note or repr(read) in note for note in task.notes)


def test_names_with_the_same_characters_that_must_work(cells):
    from waddington_nb import Task

    task = Task(
        relabelled(cells, ["KO_A", "HLA-A", "A+B", "CD4+"]), group_key="cell_type", hold_out_group="NK"
    )
    assert {p for _, p in task.test_conditions} == {"KO_A", "HLA-A", "A+B", "CD4+"}


def test_unseen_perturbation_without_embedding_is_named(cells):
    from waddington_nb import Task

    noted = lambda task: [note for note in task.notes if "no measured gene by name" in note]
    relabelled(cells, ["gene1", "unheard", "gene2"])
    assert not noted(Task(cells, hold_out_perturbation="gene1"))
    (note,) = noted(Task(cells, hold_out_perturbation="unheard"))
    assert "name: unheard." in note
    relabelled(cells, ["gene1", "gene2", "gene1+unheard"])  # of which nobody knows a part: one name
    task = Task(cells, hold_out_perturbation="gene1+unheard")
    assert "name: gene1+unheard." in noted(task)[0] and task.components("gene1+unheard") == ("gene1+unheard",)
    relabelled(cells, ["gene1", "gene2", "gene1+unheard", "gene2+unheard"])
    task = Task(cells, hold_out_perturbation="unheard+gene1")
    assert not noted(task) and task.components("gene1+unheard") == ("gene1", "unheard")


@pytest.mark.parametrize("bad", ["high", "1,5", "", "inf"])
def test_times_that_are_not_numbers(waddington, cells, tmp_path, bad):
    cells.obs["hours"] = "1"
    cells.obs.iloc[3, cells.obs.columns.get_loc("hours")] = bad
    cells.write_h5ad(tmp_path / "x.h5ad")
    options = [*KEYS, "--time-key", "hours"]
    refused(waddington, tmp_path / "out", "not finite numbers", "run", tmp_path / "x.h5ad", *options)


@pytest.mark.parametrize(
    "bad, said", [("high", "'high'"), ("", "''"), ("inf", "'inf'"), ("-1", "negative doses")]
)
def test_doses_that_are_not_numbers(waddington, cells, tmp_path, bad, said):
    cells.obs["dose"] = np.where(cells.obs["perturbation"] == "control", "none", "1")
    treated = np.flatnonzero(cells.obs["perturbation"] != "control")
    cells.obs.iloc[treated[3], cells.obs.columns.get_loc("dose")] = bad
    cells.write_h5ad(tmp_path / "x.h5ad")
    refused(waddington, tmp_path / "out", said, "run", tmp_path / "x.h5ad", *KEYS, "--dose-key", "dose")


def test_combination_that_shares_one_dose(waddington, cells, tmp_path):
    relabelled(cells, ["A", "B", "A+B"]).obs["dose"] = 1.0
    cells.write_h5ad(tmp_path / "x.h5ad")
    options = [*KEYS, "--dose-key", "dose"]
    refused(waddington, tmp_path / "out", "A@1+B@10", "run", tmp_path / "x.h5ad", *options)


@pytest.mark.parametrize(
    "name, text, said",
    [
        ("nowhere.gmt", None, "no file"),
        ("sets.gmt", "set\tfrom\tX\tY", "knows none of the perturbations"),
        ("table.csv", "gene,what\ngene1,high", "neither a network"),
        ("empty.csv", "", "cannot read prior"),
    ],
)
def test_priors(waddington, cells, tmp_path, name, text, said):
    relabelled(cells, ["gene1", "gene2", "gene3"]).write_h5ad(tmp_path / "x.h5ad")
    if text is not None:
        (tmp_path / name).write_text(text)
    options = [*KEYS, "--hold-out-perturbation", "gene1", "--prior", str(tmp_path / name)]
    refused(waddington, tmp_path / "out", said, "run", tmp_path / "x.h5ad", *options)


def test_prior_where_everything_was_seen(waddington, cells_file, tmp_path):
    (tmp_path / "sets.gmt").write_text("set\tfrom\tIFNB")
    options = [*KEYS, "--group-key", "cell_type", "--hold-out", "NK", "--prior", str(tmp_path / "sets.gmt")]
    refused(waddington, tmp_path / "out", "all to predict were measured", "run", cells_file, *options)


def test_a_prior_and_doses_from_file_to_report(waddington, cells, tmp_path):
    "The prior and the held-out dose are in config.json and the report; another prior is another run."
    relabelled(cells, ["gene1", "gene2", "gene3", "gene4"])
    cells.obs["dose"] = np.where(np.arange(cells.n_obs) % 2, 10.0, 0.5)
    cells.write_h5ad(tmp_path / "x.h5ad")
    prior, out = tmp_path / "sets.gmt", tmp_path / "out"
    prior.write_text("set\tfrom\tgene1\tgene2\nother\tfrom\tgene3\tgene4")
    options = [
        "run",
        tmp_path / "x.h5ad",
        *KEYS,
        "--dose-key",
        "dose",
        "--prior",
        prior,
        "--steps",
        600,
        "--out",
        out,
    ]
    held = sorted(read_labels(cells))[0]
    assert "@" in held
    code, said = waddington(*options, "--hold-out-perturbation", held, "--latent", 5, "--min-cells", 5)
    assert code == 0, said
    config = json.loads((out / "config.json").read_text())
    assert config["dose_key"] == "dose" and config["prior"][0].startswith("sets.gmt ")
    assert "sets.gmt" in (out / "report.html").read_text()
    assert set(ad.read_h5ad(out / "predicted.h5ad").obs["perturbation"]) == {held}
    prior.write_text("set\tfrom\tgene1\tgene3")
    code, said = waddington(*options, "--hold-out-perturbation", held, "--latent", 5, "--min-cells", 5)
    assert code == 2 and "prior was" in said


def read_labels(cells: ad.AnnData) -> set[str]:
    "Labels of perturbed cells with their doses."
    from waddington_nb.labels import with_doses

    done = cells.obs["perturbation"].to_numpy(str)
    return set(with_doses(cells.obs, done, "control", "dose")[0]) - {"control"}


def test_groups_without_control_cells(waddington, cells, tmp_path):
    from waddington_nb import DataError, Task, leaderboard

    lost = cells[~((cells.obs["cell_type"] == "NK") & (cells.obs["perturbation"] == "control"))].copy()
    lost.write_h5ad(tmp_path / "x.h5ad")
    options = [*KEYS, "--group-key", "cell_type", "--hold-out", "NK"]
    refused(waddington, tmp_path / "out", "and 0 control", "run", tmp_path / "x.h5ad", *options)
    task = Task(lost, group_key="cell_type", hold_out_group="B")
    assert any("IFNB in NK was set aside: 40 perturbed and 0 control" in note for note in task.notes)
    with pytest.raises(DataError, match="'NK' has too few cells in one of its arms; hold out another"):
        leaderboard(lost, {}, group_key="cell_type", units=["NK"])


# --------------------------------------------------------------------------------------------------- competitors


def spoiled(guess: ad.AnnData, how: str) -> object:
    "A competitor's cells, spoiled in one way."
    x = np.asarray(guess.X)
    if how == "array":
        return x
    if how in ("nan", "inf"):
        x[0, 0] = float(how)
    elif how == "few cells":
        return guess[:-1]
    elif how == "few genes":
        return guess[:, :-1]
    elif how == "other genes":
        guess.var_names = ["unknown", *guess.var_names[1:]]
    elif how == "same gene twice":
        guess.var_names = [guess.var_names[1], *guess.var_names[1:]]
    elif how == "other cells":
        guess.obs["source_cell"] = guess.obs["source_cell"] + "x"
    elif how == "truth as start":
        guess.obs["source_cell"] = np.roll(guess.obs["source_cell"].to_numpy(), 1)
        guess.obs.iloc[0, 0] = guess.obs.iloc[1, 0]
    elif how == "other perturbation":
        guess.obs["perturbation"] = "IFNG"
    elif how == "text":
        guess.X = np.full(guess.shape, "high")
    elif how == "flat path":
        guess.obsm["waddington_path"] = np.zeros((guess.n_obs, 4))
    return guess


@pytest.mark.parametrize(
    "how, said",
    [
        ("array", "is ndarray, no AnnData"),
        ("nan", "1 NaN or infinite"),
        ("inf", "1 NaN or infinite"),
        ("few cells", "39 cells for 'IFNB' in 'NK', not 40"),
        ("few genes", "39 genes and lacks"),
        ("other genes", "and lacks 'gene0'"),
        ("same gene twice", "has a gene twice"),
        ("other cells", "which is no start cell"),
        ("truth as start", "a start cell twice"),
        ("other perturbation", "which is not held out; leave them out"),
        ("text", "not real numbers"),
        ("flat path", "waddington_path"),
    ],
)
def test_competitors(cells, how, said):
    from waddington_nb import DataError, leaderboard, no_change

    method = lambda task: spoiled(no_change(task), how)
    with pytest.raises(DataError) as error:
        leaderboard(cells, {"mine": method}, group_key="cell_type", units=["NK"])
    assert "competitor 'mine'" in str(error.value) and said in str(error.value)
    assert "\n" not in str(error.value)


def test_cells_without_start_or_path_go_straight_from_the_tasks_own(cells):
    from waddington_nb import Task, evaluate, mean_shift

    task = Task(cells, group_key="cell_type", hold_out_group="NK")
    whole, bare = mean_shift(task), mean_shift(task)
    del bare.layers["control"]
    tables = [evaluate(task, guess, baselines={}, n_bootstrap=0).table for guess in (whole, bare)]
    assert tables[0].equals(tables[1])


def test_scgen_says_what_it_needs(cells):
    from importlib.util import find_spec

    from waddington_nb import DataError, leaderboard
    from waddington_nb.leaderboards import scgen

    if find_spec("pertpy"):
        pytest.skip("pertpy is installed")
    with pytest.raises(DataError, match="pip install 'waddington_nb\\[scgen\\]'"):
        leaderboard(cells, {"scGen": scgen}, group_key="cell_type", units=["NK"])
