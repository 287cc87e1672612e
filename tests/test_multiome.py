"""Several modalities and real times: what is refused, what is matched by name, what the command writes."""

import json
import os
from dataclasses import replace
from functools import partial

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from scipy import sparse

import waddington_nb as wd
from waddington_nb import cli, representations
from waddington_nb.core import save_folder
from waddington_nb.measurements import binarise, clr, read_modalities
from waddington_nb.multiome import SYNCHRONIES, example_multiome, write_h5mu
from waddington_nb.time_tasks import TimeCourseTask

KEYS = ["--perturbation-key", "arm", "--control", "control", "--time-key", "hours"]
STAGES = [wd.TRPO(steps=3000), wd.PPO(steps=3000)]


@pytest.fixture
def parts():
    return example_multiome(cells=30)


@pytest.fixture
def file(tmp_path, parts):
    return write_h5mu(tmp_path / "cells.h5mu", parts)


def quick(task, seed=0):
    return wd.fit(task, STAGES, seed, n_latent=4, n_envs=128, horizon=6)


@pytest.fixture
def light(monkeypatch):
    "Fused representations that train for a moment only."
    for name in ("fit_graph", "fit_autoencoder"):
        monkeypatch.setattr(representations, name, partial(getattr(representations, name), steps=100))


def damaged(parts, name):
    if name == "apart":
        parts["atac"].obs_names = [f"other{i}" for i in range(parts["atac"].n_obs)]
    if name == "duplicated":
        parts["atac"].var_names = ["gene0", *parts["atac"].var_names[1:]]
    if name == "empty":
        parts["atac"] = parts["atac"][:, :0].copy()
    if name == "filled":
        parts["atac"].X = parts["atac"].X + 0.5
    if name in ("words", "once"):
        for part in parts.values():
            part.obs["hours"] = {"words": "early", "once": 1.0}[name]
    if name == "kind":
        parts["spatial"] = parts.pop("atac")
    if name == "nan":
        parts["rna"].X[3, 4] = np.nan
    return parts


@pytest.mark.parametrize(
    "name, said",
    [
        ("apart", "no cell in common"),
        ("duplicated", "'gene0' is in modalities 'rna' and 'atac'"),
        ("empty", "modality 'atac' is empty"),
        ("filled", "hardly any zeros"),
        ("words", "not finite numbers"),
        ("once", "one time only"),
        ("kind", "no known kind"),
        ("nan", "NaN or infinite"),
    ],
)
def test_refused(parts, name, said):
    with pytest.raises(wd.DataError, match=said) as refusal:
        TimeCourseTask(damaged(parts, name), "hours", 1)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "options, said",
    [
        (["--hold-out-time", "0", "1"], "fewer than two times"),
        (["--hold-out-time", "1", "--modalities", "atak"], "did you mean 'atac'"),
        (["--hold-out-time", "1", "--group-key", "arm"], "cannot be combined"),
        (["--hold-out-time", "1", "--pseudotime", "5"], "either --time-key"),
        (["--hold-out-time", "1", "--representation", "umap"], "invalid choice: 'umap'"),
        (["--hold-out-time", "1", "--device", "abacus"], "device 'abacus' is not available"),
        (
            ["--hold-out-time", "1", "--gene-positions", "nowhere.csv"],
            "cannot read the gene positions nowhere.csv",
        ),
        (["--modalities", "rna"], "needs --hold-out-time"),
        (["--pseudotime", "4"], "needs --hold-out-time"),
        (["--hold-out-time", "soon"], "is 'soon'; give a finite number"),
        (["--hold-out-time", "1", "--min-cells", "31"], "30 cells of 'all' at hours 0, 31 needed"),
    ],
)
def test_refused_on_the_command_line(waddington, file, tmp_path, options, said):
    code, stderr = waddington("run", file, *KEYS, *options, "--out", tmp_path / "out")
    assert code == 2 and said in stderr and stderr.count("\n") == 0
    assert not (tmp_path / "out").exists()


def test_cells_are_matched_by_name(parts):
    straight = TimeCourseTask(parts, "hours", 1)
    shuffled = parts["atac"][np.random.default_rng(1).permutation(90)].copy()
    other = TimeCourseTask({"rna": parts["rna"], "atac": shuffled}, "hours", 1)
    assert (straight.modalities["atac"].x != other.modalities["atac"].x).nnz == 0
    fewer = TimeCourseTask({"rna": parts["rna"], "atac": shuffled[:80].copy()}, "hours", 1)
    assert len(fewer.names) == 80 and any("10 cells of rna were left out" in note for note in fewer.notes)


def test_a_logarithm_does_not_change_what_is_open(parts):
    logged = parts["atac"].copy()
    logged.X = sparse.csr_matrix(np.log1p(3.3 * logged.X))
    one, other = (TimeCourseTask({"atac": a}, "hours", 1) for a in (parts["atac"], logged))
    assert (one.modalities["atac"].x != other.modalities["atac"].x).nnz == 0
    assert any("not counts" in note for note in other.notes) and not one.notes
    assert binarise(logged.X)[0].max() == 1


def test_a_mudata_is_taken_as_it_is(file, parts):
    mudata = pytest.importorskip("mudata")
    with mudata.set_options(pull_on_update=False):
        whole = mudata.read_h5mu(file)
    task, same = TimeCourseTask(whole, "hours", 1), TimeCourseTask(read_modalities(file), "hours", 1)
    assert list(task.modalities) == list(same.modalities) == ["rna", "atac"]
    assert all((task.modalities[n].x != same.modalities[n].x).nnz == 0 for n in task.modalities)
    assert all((read_modalities(file)[n].X == parts[n].X).all() for n in parts)


def test_a_time_outside_is_extrapolation(parts, tmp_path):
    task = TimeCourseTask(parts, "hours", 3, modalities=["rna"])
    model = quick(task)
    assert task.extrapolates and model.clock_of("all").step_at(3) > model.guide.horizon
    report = wd.evaluate(task, model.predict(task))
    said = report.to_html(tmp_path / "report.html").read_text()
    assert "hours 3 lies outside the training times 0 to 1: this is extrapolation" in said
    assert "Genes and the chromatin" not in said  # there is no chromatin
    timed = report.table.query("metric == 'timed_energy_distance'").set_index("method")["value"]
    assert timed["policy"] < timed["no_change"]


def test_held_out_cells_change_nothing_fitted(parts):
    task = TimeCourseTask(parts, "hours", 1)
    for part in parts.values():
        part.X[task.is_truth] = np.random.default_rng(1).integers(0, 2, (30, part.n_vars))
    other = TimeCourseTask(parts, "hours", 1)
    one, two = quick(task), quick(other)
    weights = [m.guide.policy.state_dict().values() for m in (one, two)]
    assert all((a == b).all() for a, b in zip(*weights, strict=True))
    for name, cells in one.predict(task).items():
        assert (cells.X == two.predict(other)[name].X).all()


def test_arms_stop_where_their_cells_stop():
    rng, n = np.random.default_rng(0), 40
    rows = [
        (arm, t, min(t, 2) if arm == "stopped" else t)
        for arm in ("control", "stopped")
        for t in (0, 1, 2, 3, 4)
    ]
    obs = pd.DataFrame([row[:2] for row in rows for _ in range(n)], columns=["arm", "day"])
    obs.index = [f"cell{i}" for i in range(len(obs))]
    reached = np.repeat([row[2] for row in rows], n)[:, None]
    cells = ad.AnnData(rng.poisson(20 + 15 * reached * (np.arange(20) < 6)).astype("float32"), obs=obs)
    task = TimeCourseTask(cells, "day", 2, perturbation_key="arm", control="control")
    assert task.arms == ["control", "stopped"]
    model = quick(task)
    ends = {}
    for route in model.routes(task):
        ends[route.start.arm] = np.linalg.norm((route.states[:, -1] - route.states[:, 0]).mean(axis=0))
    assert ends["stopped"] < 0.8 * ends["control"]


def test_protein_is_taken_relative(parts):
    counts = np.random.default_rng(0).poisson(20, (90, 8)).astype("float32")
    prot = ad.AnnData(counts, obs=parts["rna"].obs.copy())
    prot.var_names = [f"tag{i}" for i in range(8)]
    task = TimeCourseTask({"rna": parts["rna"], "prot": prot}, "hours", 1)
    assert np.allclose(task.modalities["prot"].x.toarray(), clr(counts)[task.is_train | task.is_truth])
    model = quick(task)
    predicted = model.predict(task)["prot"]
    assert predicted.shape == (30, 8) and np.abs(predicted.X - predicted.layers["control"]).max() < 2


POSITIONS = "gene,chrom,start,end,strand\n" + "".join(
    f"gene{i},chr1,{3000 * i + 100},{3000 * i + 900},+\n" for i in range(40)
)


def test_the_command_writes_everything(waddington, file, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "genes.csv").write_text(POSITIONS)
    options = ["run", file, *KEYS, "--hold-out-time", "1", "--steps", "6000", "--latent", "4", "--out", out]
    options += ["--gene-positions", tmp_path / "genes.csv"]
    assert waddington(*options)[0] == 0
    names = {p.name for p in out.iterdir()}
    assert names == {
        *(
            "report.html",
            "metrics.csv",
            "predicted.h5mu",
            "trajectories.h5ad",
            "training.csv",
            "policy.safetensors",
        ),
        *("config.json", "figures", "model"),
    }
    table = pd.read_csv(out / "metrics.csv")
    contract = (
        "modality group perturbation method metric genes seed value null ceiling ci_low ci_high".split()
    )
    assert list(table)[: len(contract)] == contract
    assert set(table["modality"]) == {"rna", "atac", "joint"}
    assert {"policy", "field", "transport", "nearest_time", "no_change"} <= set(table["method"])
    predicted = read_modalities(out / "predicted.h5mu")
    assert (
        predicted["rna"].layers["control"].shape == predicted["rna"].shape
        and "source_cell" in predicted["rna"].obs
    )
    assert 0 <= predicted["atac"].X.min() and predicted["atac"].X.max() <= 1
    steps = ad.read_h5ad(out / "trajectories.h5ad")
    assert steps.obs["time"].max() == 3 and steps.obs["step"].nunique() == 13
    page = (out / "report.html").read_text()
    assert "cells rna 1" in page and "cells atac 1" in page and page.count("<img") == 7
    assert "Genes and the chromatin near them" in page and (out / "figures" / "chromatin_1.png").is_file()
    assert json.loads((out / "config.json").read_text())["hold_out_time"] == [1.0]
    before = (out / "predicted.h5mu").read_bytes()
    assert waddington(*options, "--resume")[0] == 0 and (out / "predicted.h5mu").read_bytes() == before


def test_gene_positions_must_fit(waddington, file, tmp_path):
    (tmp_path / "far.csv").write_text(POSITIONS.replace(",chr1,", ",chr2,"))
    (tmp_path / "here.csv").write_text(POSITIONS)
    run = ["run", file, *KEYS, "--hold-out-time", "1", "--out", tmp_path / "out", "--gene-positions"]
    code, stderr = waddington(*run, tmp_path / "far.csv")
    assert code == 2 and "share no chromosome" in stderr
    code, stderr = waddington(*run, tmp_path / "here.csv", "--modalities", "rna")
    assert code == 2 and "needs an RNA and an ATAC modality" in stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize("representation", ["autoencoder", "graph"])
def test_fused_states_are_fitted_on_training_cells(light, parts, representation):
    task = TimeCourseTask(parts, "hours", 1)
    fused = lambda task: wd.fit(task, [], n_latent=4, horizon=6, representation=representation)
    one = fused(task)
    for part in parts.values():
        part.X[task.is_truth] = np.random.default_rng(1).integers(0, 2, (30, part.n_vars))
    other = fused(TimeCourseTask(parts, "hours", 1))
    cells, others = one.predict(task), other.predict(task)
    for name in cells:
        assert (cells[name].X == others[name].X).all() and np.isfinite(cells[name].X).all()
    still = one.predict(task, 0.0)["rna"]
    assert np.allclose(
        still.X, still.layers["control"].toarray(), atol=1e-4
    )  # at the start cells are themselves
    table = wd.evaluate(task, cells).table
    timed = table.query("metric == 'timed_energy_distance' and modality == 'rna'")
    assert (timed["value"] >= -1e-9).all()


def test_stages_of_pseudotime(light, waddington, file, tmp_path):
    "The order is right, its root a control cell that is named, and labels need not be numbers."
    options = [
        "run",
        file,
        *KEYS[:4],
        "--pseudotime",
        "5",
        "--hold-out-time",
        "2",
        "--representation",
        "graph",
    ]
    code, stderr = waddington(
        *options, "--steps", "2000", "--latent", "4", "--min-cells", "5", "--out", tmp_path / "out"
    )
    assert code == 0, stderr
    page = (tmp_path / "out" / "report.html").read_text()
    assert "5 stages of diffusion pseudotime" in page and "the control cell nearest" in page
    code, stderr = waddington(*options, "--control", "vehicle", "--out", tmp_path / "other")
    assert code == 2 and "'vehicle' is not in obs['arm']" in stderr


def test_cells_of_different_pace(parts):
    "With three training times the synchrony is chosen among them; paths end where all have arrived."
    task = TimeCourseTask(parts, "hours")
    model = quick(task)
    assert model.dynamics.synchrony in SYNCHRONIES and len(model.evidence) == 1
    assert any("inner training times that were left out" in note for note in model.notes)
    slow = replace(model, dynamics=model.dynamics._replace(synchrony=2.0)).routes(task)[0]
    assert np.allclose(slow.states[:, [0, 6]], slow.in_step[:, [0, 6]], atol=1e-5)
    assert not np.allclose(slow.states[:, 3], slow.in_step[:, 3], atol=1e-2)


def test_real_cells(real_data):
    "One in three cells, RNA: the policy is nearer to 1 h than 0 h and 3 h are."
    cells = wd.read(real_data("a549_dex_scicar_multiome.h5mu"))[::3]
    task = TimeCourseTask(cells, "time_h", 1, perturbation_key="perturbation", control="control")
    report = wd.evaluate(task, wd.fit(task, [wd.TRPO(steps=3000)], n_latent=30).predict(task))
    timed = report.table.query("metric == 'timed_energy_distance'").set_index("method")["value"]
    assert timed["policy"] < timed["transport"] < timed["nearest_time"]
    assert timed["nearest_time"] <= timed["no_change"] * (1 + 1e-6)  # they may be the same cells


def test_scores_of_real_cells_stay(real_data):
    "Myoblasts, 24 h held out, fields alone: the scores of version 0.1."
    task = TimeCourseTask(wd.read(real_data("hsmm_myoblast_timecourse.h5ad")), "hours", 24)
    report = wd.evaluate(task, wd.fit(task, []).predict(task))
    value = report.table.set_index(["method", "metric"])["value"]
    assert value["policy", "path_energy_distance"] == pytest.approx(0.812, abs=1e-3)
    assert value["policy", "timed_energy_distance"] == pytest.approx(0.916, abs=1e-3)
    assert value["transport", "path_energy_distance"] == pytest.approx(0.913, abs=1e-3)


def start_cells(parts, seed_cells=37):
    "New cells of the first time."
    new = example_multiome(seed=4, cells=seed_cells)
    return {name: part[part.obs["hours"] == 0].copy() for name, part in new.items()}


def test_a_kept_model_predicts_the_same(parts, tmp_path):
    "To the byte, for its own task, for another time and for new cells."
    task = TimeCourseTask(parts, "hours", 1)
    model = quick(task)
    kept = wd.load_model(model.save(tmp_path / "model"))
    assert kept.dynamics == model.dynamics and kept.notes == model.notes
    for source, time in ((task, None), (task, [0.5, 4.0]), (start_cells(parts), 1)):
        one, two = model.predict(source, time), kept.predict(source, time)
        for name in one:
            assert np.array_equal(one[name].X, two[name].X)
            paths = [cells[name].obsm["waddington_path"] for cells in (one, two)]
            assert np.array_equal(*paths)


@pytest.mark.parametrize("representation", ["pca", "graph"])
def test_a_kept_model_holds_no_cell(light, tmp_path, representation):
    "No name of a cell, no array with a row per training cell, no absolute path."
    parts = {name: part[:-3].copy() for name, part in example_multiome(cells=53).items()}
    task = TimeCourseTask(parts, "hours", 1)
    model = wd.fit(task, [], n_latent=4, representation=representation)
    folder = model.save(tmp_path / "model")
    text = (folder / "model.json").read_text()
    assert not any(name in text for name in task.names) and str(tmp_path) not in text
    assert os.sep + "home" not in text
    counts = {53, 50, 53 + 50, 2 * 53 + 50}
    for name, array in load_file(folder / "model.safetensors").items():
        assert not counts & set(array.shape), f"{name} has shape {array.shape}"


def test_other_kinds_of_models_are_refused(tmp_path):
    save_folder(tmp_path / "model", "Forest", {}, {"trees": np.zeros(3)})
    with pytest.raises(wd.DataError, match="holds a Forest, not a Model or a TimeCourseModel"):
        wd.load_model(tmp_path / "model")


def test_new_cells_are_matched_by_name(parts):
    "Features in any order, some lacking; other cells of the task's own start give nearly what the task gives."
    model, new = quick(TimeCourseTask(parts, "hours", 1)), start_cells(parts)
    whole = model.predict(new, 1)
    shuffled = {name: part[:, ::-1].copy() for name, part in new.items()}
    shuffled["rna"] = shuffled["rna"][:, :-1].copy()
    fewer = model.predict(shuffled, 1)
    assert fewer["rna"].n_vars == whole["rna"].n_vars - 1 and "gene0" not in fewer["rna"].var_names
    assert np.array_equal(fewer["atac"].obs_names, whole["atac"].obs_names)
    with pytest.raises(wd.DataError, match="say which time"):
        model.predict(new)
    with pytest.raises(wd.DataError, match="the model needs atac"):
        model.predict({"rna": new["rna"]}, 1)


def test_arms_need_not_share_their_times():
    "An arm that skips a time has one segment less."
    rng, n = np.random.default_rng(0), 25
    rows = [(arm, t) for arm, times in (("a", (0, 1, 2)), ("b", (0, 2))) for t in times for _ in range(n)]
    obs = pd.DataFrame(rows, columns=["arm", "day"], index=[f"cell{i}" for i in range(len(rows))])
    far = obs["day"].to_numpy()[:, None] * (np.arange(20) < 6)
    cells = ad.AnnData(rng.poisson(20 + 15 * far).astype("float32"), obs=obs)
    task = TimeCourseTask(cells, "day", 1, perturbation_key="arm")
    every = TimeCourseTask(cells, "day", perturbation_key="arm")
    report = wd.evaluate(task, wd.fit(task, [], n_latent=4).predict(task))
    assert set(report.table["group"]) == {"a"}  # nobody measured b at 1
    model = wd.fit(every, [], n_latent=4)
    found = model.predict(every, 1.5)["rna"]
    assert [s.arm for s in model.segments] == ["a", "a", "b"] and set(found.obs["arm"]) == {"a", "b"}
    assert found.obsm["waddington_times"].shape == (2 * n, 25)


def test_a_kept_model_on_the_command_line(waddington, file, tmp_path, parts):
    out, new = tmp_path / "out", write_h5mu(tmp_path / "new.h5mu", start_cells(parts))
    run = ["run", file, *KEYS, "--hold-out-time", "1", "--stages", "none", "--latent", "4", "--out", out]
    assert waddington(*run)[0] == 0
    ask = ["predict", "--model", out / "model", new]
    code, said = waddington(*ask, "--time", "2", "6", "--out", tmp_path / "asked")
    assert code == 0, said
    names = {p.name for p in (tmp_path / "asked").iterdir()}
    assert names >= {"report.html", "predicted.h5mu", "genes.csv", "evidence.csv", "config.json"}
    page = (tmp_path / "asked" / "report.html").read_text()
    assert "6 lies outside the measured times 0 to 3" in page and "do not rely on it" in page
    cells = read_modalities(tmp_path / "asked" / "predicted.h5mu")
    assert cells["rna"].n_obs == 2 * 37 and set(cells["rna"].obs["perturbation"]) == {"2", "6"}
    for options, said in (([], "say which time"), (["--time", "1", "--perturbation", "tgf"], "no arm 'tgf'")):
        code, stderr = waddington(*ask, *options, "--out", tmp_path / "refused")
        assert code == 2 and said in stderr and not (tmp_path / "refused").exists()


def test_the_page_of_a_time_course_answers_questions(parts, tmp_path):
    task = TimeCourseTask(parts, "hours", 1)
    model = wd.fit(task, [], n_latent=4)
    report = wd.evaluate(task, {"ours": model.predict(task)})
    page = report.to_html(tmp_path / "report.html").read_text()
    assert (
        page.index("ours beats the better null")
        < page.index("What was asked")
        < page.index("How good is it?")
    )
    assert "Are they there at the right time?" in page and "Two training times cannot tell" not in page
    assert any("Two training times cannot tell" in note for note in model.notes)
    assert report.summary()["modality"].nunique() == 3 and report.plot(show=False) is not None


def test_a_truncated_file_is_refused(waddington, file, tmp_path):
    file.write_bytes(file.read_bytes()[:-200])
    code, stderr = waddington("run", file, *KEYS, "--hold-out-time", 1, "--out", tmp_path / "out")
    assert code == 2 and "cannot read" in stderr and "copy it again" in stderr and stderr.count("\n") == 0


def test_rna_by_another_name(tmp_path, parts):
    path = write_h5mu(tmp_path / "gex.h5mu", {"atac": parts["atac"], "gex": parts["rna"]})
    assert list(wd.read(path).var_names) == list(parts["rna"].var_names)
    with pytest.raises(wd.DataError, match="no modality 'protein'"):
        wd.read(path, "protein")


def arm_task(file, perturbation, control="control"):
    "The task that the command line makes of one arm."
    labels = ["--perturbation-key", "arm", "--control", control, "--perturbation", perturbation]
    times = ["--time-key", "hours", "--hold-out-time", "1", "--min-cells", "5"]
    return cli.time_task(cli.parser().parse_args(["run", str(file), *labels, *times]))


def test_one_arm_by_labels_of_one_modality(tmp_path, parts):
    obs = parts["rna"].obs
    obs["arm"] = np.where(obs["hours"] == 0, "control", np.resize(["dex", "tgf"], len(obs)))
    del parts["atac"].obs["arm"]
    path = write_h5mu(tmp_path / "cells.h5mu", {"atac": parts["atac"], "rna": parts["rna"]})
    task = arm_task(path, "dex")
    assert set(task.names) == set(obs.index[obs["arm"] != "tgf"]) and list(task.modalities) == ["atac", "rna"]
    with pytest.raises(wd.DataError, match="perturbation 'dxe' is not in .* did you mean 'dex'"):
        arm_task(path, "dxe")
    with pytest.raises(wd.DataError, match="control 'ctrl' is not in .* did you mean 'control'"):
        arm_task(path, "dex", "ctrl")


def test_a_third_of_an_hour_is_scored(parts):
    "A time that no decimal number holds, and cells by seed."
    for part in parts.values():
        part.obs["hours"] = part.obs["hours"] / 3
    task = TimeCourseTask(parts, "hours", 1 / 3)
    cells = wd.fit(task, [], n_latent=4).predict(task)
    table = wd.evaluate(task, {"ours": {np.int64(3): cells, 4: cells}}).table
    assert set(table["seed"]) == {3, 4} and len(table) and table["value"].notna().all()


def test_values_with_a_sign_are_not_cut_at_zero(parts):
    rna = parts["rna"].copy()
    rna.X = np.log1p(np.asarray(rna.X.todense() if sparse.issparse(rna.X) else rna.X)) - 3
    task = TimeCourseTask({"rna": rna}, "hours", 1, x_kind="continuous")
    cells = quick(task).predict(task, 1.0)
    assert (cells["rna"].X < -1).mean() > 0.3
    found = wd.evaluate(task, {"model": cells}).table
    assert np.isfinite(found["value"]).all()


def test_a_treated_arm_with_fewer_times_than_its_control_is_fitted(parts):
    rna = parts["rna"].copy()
    time = rna.obs["hours"].to_numpy(float)
    last = time == time.max()
    rna.obs["arm"] = np.where(np.arange(rna.n_obs) % 2 == 0, "control", "drug")
    rna.obs.loc[time == time.min(), "arm"] = "control"
    kept = ~(last & (rna.obs["arm"] == "drug").to_numpy())
    task = TimeCourseTask({"rna": rna[kept].copy()}, "hours", perturbation_key="arm", control="control")
    assert len(task.times_of("drug")) < len(task.times_of("control"))
    cells = quick(task).predict(task, float(task.times_of("drug")[-1]))["rna"]
    assert set(cells.obs["arm"]) == {"control", "drug"} and np.isfinite(cells.X).all()
