"Several modalities and times as people write them: the right value, or one clear line."

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest

from waddington_nb import DataError, TimeCourseTask
from waddington_nb.measurements import clr, read
from waddington_nb.time_tasks import common_cells

mudata.set_options(pull_on_update=False)


def parts(cells: int = 30, **obs) -> dict[str, ad.AnnData]:
    "RNA, chromatin and protein of the same cells at 0, 1 and 3 hours; one protein triples after 0."
    rng, n = np.random.default_rng(0), 3 * cells
    table = pd.DataFrame(
        {"hours": np.repeat([0, 1, 3], cells), "arm": "all"}, index=[f"c{i}" for i in range(n)]
    )
    rate = np.r_[5, 50, 200, 20, 10, 80] * np.where(
        (table["hours"].to_numpy() > 0)[:, None] & (np.arange(6) == 2), 3, 1
    )
    found = {
        "rna": ad.AnnData(rng.poisson(4, (n, 25)).astype("float32")),
        "atac": ad.AnnData((rng.random((n, 40)) < 0.3).astype("float32")),
        "prot": ad.AnnData(rng.poisson(rate * rng.lognormal(0, 0.4, (n, 1))).astype("float32")),
    }
    for name, part in found.items():
        part.obs, part.var_names = table.copy(), [f"{name}{i}" for i in range(part.n_vars)]
    return found


def task(data=None, hold=1, **options) -> TimeCourseTask:
    return TimeCourseTask(parts() if data is None else data, "hours", hold, **options)


def refused(data, said: str, hold=1, **options) -> None:
    with pytest.raises(DataError, match=said) as error:
        TimeCourseTask(data, "hours", hold, **options)
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------------ protein


def protein(x) -> tuple[np.ndarray, str, list[str]]:
    given = parts()
    given["prot"].X = np.asarray(x, "float32")
    found = task(given)
    return found.modalities["prot"].x.toarray(), found.modalities["prot"].x_kind, found.notes


def by_muon(x, **options) -> np.ndarray:
    import muon

    cells = ad.AnnData(np.array(x, "float32"))
    muon.prot.pp.clr(cells, **options)
    return np.asarray(cells.X)


RAW = parts()["prot"].X


def test_clr_is_muons():
    assert np.array_equal(clr(RAW), by_muon(RAW, axis=1))
    assert np.array_equal(protein(RAW)[0], by_muon(RAW, axis=1)) and protein(RAW)[1:] == ("counts", [])
    assert (np.abs(clr(RAW) - by_muon(RAW, axis=0))).max() > 0.1  # muon's default centres proteins, not cells


@pytest.mark.parametrize(
    "transform",
    [
        lambda x: by_muon(x),
        lambda x: by_muon(x, axis=1),
        lambda x: by_muon(x, axis=1, flavor="stoeckius"),
        np.log1p,
        lambda x: np.log2(x + 1),
        lambda x: np.log1p(x / x.sum(axis=1, keepdims=True) * 1e4),
        lambda x: np.log1p(x) - 3,
        lambda x: np.arcsinh(x / 5),
        np.sqrt,
        lambda x: (x - x.mean(axis=0)) / x.std(axis=0),
    ],
)
def test_protein_that_was_transformed_is_taken_as_it_is(transform):
    x = np.asarray(transform(RAW), "float32")
    got, kind, notes = protein(x)
    assert (
        np.allclose(got, x) and kind == "continuous" and any("transformed already" in note for note in notes)
    )


def test_denoised_protein_is_centred_and_said():
    got, kind, notes = protein(RAW * 0.93)
    assert (
        np.allclose(got, clr(RAW * 0.93), atol=1e-5)
        and kind == "linear"
        and any("denoised" in note for note in notes)
    )


def test_a_cell_without_protein():
    empty = RAW.copy()
    empty[3] = 0
    got, _, notes = protein(empty)
    assert (got[3] == 0).all() and any("1 cells have no reads in prot" in note for note in notes)


# ------------------------------------------------------------------------------------------------ columns of a MuData


def shuffled(hours: pd.Series) -> pd.Series:
    return hours.replace({1: 3, 3: 1})


@pytest.mark.parametrize("through_file", [False, True])
def test_the_shared_column_wins_over_an_old_one(tmp_path, through_file):
    given = parts()
    right = given["rna"].obs["hours"].copy()
    given["rna"].obs["hours"] = shuffled(right)
    data = mudata.MuData(given)
    data.obs["hours"] = right
    if through_file:
        data.write_h5mu(tmp_path / "x.h5mu")
        assert (read(tmp_path / "x.h5mu").obs["hours"].to_numpy() == right.to_numpy()).all()
    found = task(str(tmp_path / "x.h5mu") if through_file else data)
    assert (found.time == right.to_numpy()).all()
    assert any(
        "'hours'" in note and "rna differs from the shared one in 60 cells" in note for note in found.notes
    )
    assert not through_file or (data["rna"].obs["hours"] == shuffled(right)).all()


@pytest.mark.parametrize("kind", [mudata.MuData, dict])
def test_modalities_that_disagree(kind):
    given = parts()
    given["atac"].obs["hours"] = shuffled(given["atac"].obs["hours"])
    refused(
        kind(given),
        "differs between modalities 'rna' and 'atac' in 60 cells; put the right one into mdata.obs",
    )


@pytest.mark.parametrize("place", ["shared", "rna", "atac", "prot"])
def test_the_column_is_found_wherever_it_is(place):
    given = parts()
    column = given["rna"].obs["hours"].copy()
    for name, part in given.items():
        if name != place:
            part.obs = part.obs.drop(columns="hours")
    data = mudata.MuData(given)
    if place == "shared":
        data.obs["hours"] = column
    assert (task(data).time == column.to_numpy()).all()


def test_gaps_are_filled_and_a_missing_column_is_named():
    given = parts()
    whole = given["rna"].obs["hours"].to_numpy()
    given["rna"].obs["hours"] = np.where(np.arange(90) < 45, whole, np.nan)
    given["atac"].obs["hours"] = np.where(np.arange(90) >= 40, whole, np.nan)
    assert (task({k: given[k] for k in ("rna", "atac")}).time == whole).all()
    with pytest.raises(DataError, match="did you mean 'hours'"):
        TimeCourseTask(parts(), "hour", 1)


@pytest.mark.parametrize(
    "names", [("RNA", "ATAC"), ("gex", "peaks"), ("Gene Expression", "Peaks"), ("rna", "atac_peaks")]
)
def test_other_names_of_modalities(names):
    given = parts()
    found = task({names[0]: given["rna"], names[1]: given["atac"]})
    assert [m.kind for m in found.modalities.values()] == ["rna", "atac"]


def test_modalities_that_cannot_be_used():
    given = parts()
    refused(given | {"hto": given["prot"]}, "modality 'hto' is of no known kind")
    given["atac"].obs_names = [f"{name}-1" for name in given["atac"].obs_names]
    refused(given, "modality 'atac' has no cell in common with 'rna', 'prot'; give the same obs_names")
    twice = parts()
    twice["rna"].var_names = ["rna0", "rna0", *twice["rna"].var_names[2:]]
    refused(twice, "rna var_names are not unique")


def test_the_cells_are_those_that_muon_keeps():
    import muon

    given, rng = parts(), np.random.default_rng(2)
    given["atac"] = given["atac"][rng.permutation(90)[:80]].copy()
    given["prot"] = given["prot"][rng.permutation(90)[:75]].copy()
    names, notes = common_cells(given)
    data = mudata.MuData({name: part.copy() for name, part in given.items()})
    muon.pp.intersect_obs(data)
    assert set(names) == set(data.obs_names) and len(notes) == 3
    assert list(names) == [
        name for name in given["rna"].obs_names if name in set(names)
    ]  # ours keep their order
    found = task(given)
    for name, part in given.items():
        rows = part[found.names].X
        assert name != "rna" or np.allclose(
            found.modalities["rna"].x.toarray().sum(axis=1) > 0, rows.sum(axis=1) > 0
        )
        assert name != "atac" or np.array_equal(
            found.modalities["atac"].x.toarray().sum(axis=1),
            rows[:, [int(f[4:]) for f in found.modalities["atac"].features]].sum(axis=1),
        )


def test_times_at_which_a_library_failed_are_said():
    given = parts()
    given["atac"].X[:28] = 0
    said = [note for note in task(given).notes if "no reads in atac" in note]
    assert any("At hours 0 28 of 30 cells" in note for note in said) and any(
        "28 cells" in note for note in said
    )


@pytest.mark.parametrize("change", ["scaled", "filled"])
def test_chromatin_that_cannot_be_binarised(change):
    given = parts()
    x = given["atac"].X
    given["atac"].X = (x - x.mean(axis=0)) if change == "scaled" else x + 0.1
    refused(given, "modality 'atac' has (negative values|hardly any zeros)")


# ----------------------------------------------------------------------------------------------------------- times


def timed(values) -> TimeCourseTask:
    given = {"rna": parts()["rna"]}
    given["rna"].obs["t"] = values(given["rna"].obs["hours"])
    return given


@pytest.mark.parametrize(
    "write, hold",
    [
        (lambda h: h.astype(str), 1),
        (lambda h: h.astype("category"), "1"),
        (lambda h: h.astype(str) + "h", "1h"),
        (lambda h: h.astype(str) + " hours", "1 h"),
        (lambda h: h.astype(str) + "hr", 1),
        (lambda h: "day " + h.astype(str), "day 1"),
        (lambda h: "d" + h.astype(str), 1),
        (lambda h: "D" + h.astype(str), "D1"),
        (lambda h: "Day_" + h.astype(str), "1"),
        (lambda h: "day-" + h.astype(str), 1),
        (lambda h: h.astype(str) + " hpi", 1),
        (
            lambda h: pd.Series(
                pd.Categorical("day " + h.astype(str), ["day 0", "day 1", "day 3"], ordered=True), h.index
            ),
            1,
        ),
        (lambda h: pd.to_timedelta(h, unit="h"), pd.Timedelta(hours=1)),
        (lambda h: pd.to_timedelta(h, unit="h"), "60 min"),
        (lambda h: h.map({0: "0", 1: "60min", 3: "3h"}), "1h"),
        (lambda h: h.map({0: "0", 1: "1e0", 3: "3e0"}), 1.0),
        (lambda h: h.astype("float32"), "1"),
    ],
)
def test_times_as_people_write_them(write, hold):
    found = TimeCourseTask(timed(write), "t", hold)
    assert found.times.tolist() == [0, 3] and found.held_out.tolist() == [1] and found.is_truth.sum() == 30


def test_times_that_were_rounded_when_typed():
    assert TimeCourseTask(timed(lambda h: h / 3), "t", 0.333).is_truth.sum() == 30
    assert (
        TimeCourseTask(
            timed(lambda h: (h.map({0: 0.1, 1: 0.2, 3: 0.3})).astype("float32")), "t", 0.2
        ).is_truth.sum()
        == 30
    )


@pytest.mark.parametrize("bad", ["early", "0,5", "2024-01-01", "6h 3h", "inf"])
def test_times_that_are_none(bad):
    with pytest.raises(DataError, match="time_key 't' has values that are not finite numbers") as error:
        TimeCourseTask(timed(lambda h: h.astype(str).replace("1", bad)), "t", 3)
    assert repr(bad) in str(error.value)


def test_units_that_do_not_go_together():
    with pytest.raises(DataError, match="mixes units"):
        TimeCourseTask(timed(lambda h: h.map({0: "0", 1: "1 h", 3: "3 uM"})), "t", 3)
    with pytest.raises(DataError, match="but the column has no unit"):
        TimeCourseTask(timed(lambda h: h), "t", "1 h")


def arms(rows, hold=6, **options) -> TimeCourseTask:
    table = pd.DataFrame([(arm, t) for arm, t in rows for _ in range(15)], columns=["arm", "t"])
    table.index = [f"c{i}" for i in range(len(table))]
    cells = ad.AnnData(np.random.default_rng(0).poisson(3, (len(table), 20)).astype("float32"), obs=table)
    cells.var_names = [f"g{i}" for i in range(20)]
    return TimeCourseTask(cells, "t", hold, perturbation_key="arm", control="ctrl", **options)


@pytest.mark.parametrize("unit", ["{}", "{}h", "day {}"])
def test_a_common_start_in_the_control_arm(unit):
    rows = [("ctrl", 0), ("ctrl", 24), ("ctrl", 48), ("drug", 6), ("drug", 24)]
    found = arms([(arm, unit.format(t)) for arm, t in rows])
    assert found.arms == ["ctrl", "drug"] and found.times_of("drug").tolist() == [0, 24]
    assert found.times_of("ctrl").tolist() == [0, 24, 48]
    start = found.cells("drug", 0)
    assert (found.obs["arm"].iloc[start] == "ctrl").all() and len(start) == 15
    assert any("it starts from the 'ctrl' cells there" in note for note in found.notes)


def test_other_designs_of_arms():
    found = arms([("ctrl", 0), ("A", 6), ("A", 24), ("B", 6), ("B", 24)])
    assert found.arms == ["A", "B"] and found.times_of("B").tolist() == [0, 24]
    fork = arms([("ctrl", 0), ("ctrl", 6), ("ctrl", 8), ("x", 12), ("x", 18), ("y", 12), ("y", 18)])
    assert fork.times_of("x").tolist() == [0, 12, 18]
    with pytest.raises(DataError, match="'B' was seen at one time only"):
        arms([("ctrl", 3), ("ctrl", 24), ("A", 3), ("A", 24), ("B", 3)])
