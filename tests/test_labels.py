"Labels as other people write them: each file gives the task of its plain twin, or one clear line."

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from waddington_nb import DataError, Task
from waddington_nb.labels import read_perturbations

GENES = [f"GENE{i}" for i in range(60)]


def screen(labels, *, n: int = 20, seed: int = 0, **obs) -> ad.AnnData:
    "`n` cells of every label; each component has an effect of its own, and pairs one that their parts do not have."
    rng = np.random.default_rng(seed)
    base, effect = rng.gamma(0.8, 2, len(GENES)), {}
    of = lambda name: effect.setdefault(name, rng.normal(0, 0.5, len(GENES)))
    rows, X = [], []
    for label in labels:
        parts = sorted(set(str(label).split("+")) - {"control", "ctrl"})
        shift = sum((of(p) for p in parts), np.zeros(len(GENES)))
        shift = shift + (of("|".join(parts)) if len(parts) > 1 else 0)
        X.append(rng.poisson(base * np.exp(shift), (n, len(GENES))))
        rows += [label] * n
    table = pd.DataFrame({"p": rows}, index=[f"c{i}" for i in range(len(rows))])
    for key, values in obs.items():
        table[key] = np.repeat(values, n)
    return ad.AnnData(np.concatenate(X).astype("float32"), obs=table, var=pd.DataFrame(index=GENES))


def relabel(cells: ad.AnnData, new) -> ad.AnnData:
    "The cells with other labels: a mapping, or labels by position in turn for those of one label."
    found = cells.copy()
    found.obs["p"] = found.obs["p"].map(lambda label: new.get(label, label)).astype(object)
    return found


def in_turn(cells: ad.AnnData, label: str, spellings) -> ad.AnnData:
    "The cells of one label, spelled in several ways in turn."
    found = cells.copy()
    column = found.obs["p"].to_numpy(object).copy()
    column[column == label] = np.resize(np.array(spellings, object), (column == label).sum())
    found.obs["p"] = column
    return found


def task(cells, control="control", **options) -> Task:
    return Task(cells, "p", control, **options)


def same(one: Task, other: Task) -> bool:
    "The same cells, genes, split and labels but for the name of the control."
    plain = lambda t: np.where(t.perturbation == t.control, "control", t.perturbation)
    return (
        (plain(one) == plain(other)).all()
        and (one.is_train == other.is_train).all()
        and (one.genes == other.genes).all()
        and np.array_equal(one.x, other.x)
        and one.test_conditions == other.test_conditions
    )


PAIRS = screen(["control", "A", "B", "C", "A+B", "A+C"])


@pytest.mark.parametrize("asked", ["A+B", "B+A", " B + A"])
@pytest.mark.parametrize("spellings", [["A+B", "B+A"], ["B+A"], ["A + B", "B+A", "B +A "]])
def test_components_have_no_order(asked, spellings):
    plain = task(PAIRS, hold_out_perturbation="A+B")
    assert plain.test_conditions == [("all", "A+B")]
    assert same(plain, task(in_turn(PAIRS, "A+B", spellings), hold_out_perturbation=asked))


def test_three_components_have_no_order():
    cells = screen(["control", "A", "B", "C", "A+B", "A+B+C"])
    mixed = in_turn(cells, "A+B+C", ["C+A+B", "B+C+A", "A+B+C", "C+B+A"])
    plain = task(cells, hold_out_perturbation="A+B+C")
    assert same(plain, task(mixed, hold_out_perturbation="B+A+C"))
    assert not (task(mixed, hold_out_perturbation="A+B+C").perturbation[plain.is_train] == "A+B+C").any()


@pytest.mark.parametrize("asked, spelled", [("A@1+B@2", "B@2.0+A@1"), ("B@2+A@1.0", "A@1e0+B@2")])
def test_doses_have_one_spelling(asked, spelled):
    cells = relabel(PAIRS, {"A": "A@1", "B": "B@2", "C": "C@10", "A+B": "A@1+B@2", "A+C": "A@1+C@10"})
    odd = in_turn(in_turn(cells, "A@1+B@2", ["A@1+B@2", spelled]), "A@1", ["A@1", "A@1.0"])
    assert same(task(cells, hold_out_perturbation="A@1+B@2"), task(odd, hold_out_perturbation=asked))


@pytest.mark.parametrize(
    "names",
    [
        {"A": "2i (LIF+MEKi+GSK3i)", "B": "Dox", "C": "LIF", "A+B": "Ca2+", "A+C": "MEKi"},
        {"A": "[('Drug A', 0.05, 'uM')]", "B": "[('Drug B/C', 0.5, 'uM'), ('Drug A', 0.5, 'uM')]", "C": "[('D+', 5.0, 'uM')]", "A+B": "x", "A+C": "y"},
        {"A": "../x/PMA/Iono", "B": "IFN-γ <b>&amp;</b>", "C": "a\tb", "A+B": "%s{}$\\alpha$", "A+C": "(+)-JQ1"},
        {"A": "Na+/K+", "B": "IL2+", "C": "IL2-", "A+B": "CD4+ T", "A+C": "F+G"},
    ],
)  # fmt: skip
def test_what_belongs_to_a_name_is_left_whole(names):
    plain = {old: f"{i}" for i, old in enumerate(names)}
    order = lambda t, names: [
        list(names.values()).index(p) if p in names.values() else -1 for p in t.perturbation
    ]
    one, other = (task(relabel(PAIRS, m)) for m in (plain, names))
    assert order(one, plain) == order(other, names)
    assert all(other.components(name) == (name,) for name in names.values())
    for held in names.values():
        t = task(relabel(PAIRS, names), hold_out_perturbation=held)
        assert t.test_conditions == [("all", held)] and not (t.perturbation[t.is_train] == held).any()


@pytest.mark.parametrize("pair", ["LIF+Ca2+", "Ca2++LIF", "Ca2+ + LIF"])
def test_a_plus_at_the_end_of_a_component(pair):
    cells = relabel(PAIRS, {"A": "Ca2+", "B": "LIF", "A+B": pair, "A+C": "x", "C": "y"})
    t = task(cells, hold_out_perturbation="LIF+Ca2+")
    assert t.components(t.test_conditions[0][1]) == ("Ca2+", "LIF")
    assert any("Read as combinations" in note for note in t.notes)
    assert any("left whole: 'Ca2+'" in note for note in t.notes)


def test_measured_genes_are_known_components():
    t = task(relabel(PAIRS, {"A+B": "GENE3+GENE9", "A+C": "GENE3+unheard"}))
    assert t.components("GENE9+GENE3") == ("GENE3", "GENE9")
    assert t.components("GENE3+unheard") == ("GENE3+unheard",)


@pytest.mark.parametrize("turn", [["{}+ctrl"], ["ctrl+{}"], ["{}+ctrl", "ctrl+{}"], ["{}+ctrl", "{}"]])
@pytest.mark.parametrize("control", ["ctrl", "ctrl+ctrl"])
def test_the_labels_of_gears(turn, control):
    cells = relabel(PAIRS, {"control": control})
    for single in "ABC":
        cells = in_turn(cells, single, [way.format(single) for way in turn])
    cells = in_turn(cells, "A+B", ["A+B", "B+A"])
    read = task(cells, "ctrl", hold_out_perturbation="B+A")
    assert same(task(PAIRS, hold_out_perturbation="A+B"), read)
    assert not any("np.str_" in note for note in read.notes)


@pytest.mark.parametrize("joint", ["_", "|", ",", ";", " & ", "-", "/"])
def test_other_joints_are_refused(joint):
    with pytest.raises(DataError, match="rename it 'A\\+B'") as error:
        task(relabel(PAIRS, {"A+B": f"A{joint}B"}))
    assert "\n" not in str(error.value) and "np.str_" not in str(error.value)


def test_pairs_of_genes_and_controls_with_other_joints_are_said():
    t = task(relabel(PAIRS, {"A+B": "GENE3_GENE9", "A+C": "GENE3_NegCtrl0"}))
    assert any("'GENE3_GENE9', 'GENE3_NegCtrl0' looks like a combination" in note for note in t.notes)


# ------------------------------------------------------------------------------------- blanks, case, missing labels


@pytest.mark.parametrize("blank", ["A ", " A", "\u00a0A", "A\u200b", "\ufeffA", "A\n"])
def test_blanks_around_labels(blank):
    assert same(
        task(PAIRS, hold_out_perturbation="A"),
        task(in_turn(PAIRS, "A", ["A", blank]), hold_out_perturbation="A"),
    )


@pytest.mark.parametrize(
    "missing", [None, np.nan, "nan", "NaN", "None", "NA", "<NA>", "", " ", "N/A", "null", "#N/A", "NaT"]
)
@pytest.mark.parametrize("categorical", [False, True])
def test_missing_labels(missing, categorical):
    cells = in_turn(PAIRS, "A", [missing])
    if categorical:
        cells.obs["p"] = pd.Categorical(cells.obs["p"])
    rest = task(PAIRS[PAIRS.obs["p"] != "A"].copy(), hold_out_perturbation="B")
    read = task(cells, hold_out_perturbation="B")
    assert same(rest, read) and any("20 cells without a label" in note for note in read.notes)


@pytest.mark.parametrize("name", ["None", "NA", "nan"])
def test_missing_by_name_and_meant(name):
    assert same(
        task(PAIRS, hold_out_perturbation="A"),
        task(relabel(PAIRS, {"control": name}), name, hold_out_perturbation="A"),
    )
    t = task(relabel(PAIRS, {"A": name}), hold_out_perturbation=name)
    assert t.test_conditions == [("all", name)]


def test_labels_that_differ_in_case():
    mixed = in_turn(PAIRS, "A", ["A", "a "])
    assert any("'A', 'a' differ in case" in note for note in task(mixed, hold_out_perturbation="B").notes)
    with pytest.raises(DataError, match="a leak if they are one; rename all but one"):
        task(mixed, hold_out_perturbation="A")
    inner = in_turn(relabel(PAIRS, {"A": "Drug A"}), "Drug A", ["Drug A", "Drug  A"])
    with pytest.raises(DataError, match="differ in case"):
        task(inner, hold_out_perturbation="Drug A")
    grouped = screen(["control", "A"] * 2, group=["NK", "NK", "nk", "nk"])
    with pytest.raises(DataError, match="'NK', 'nk' differ in case"):
        task(grouped, group_key="group", hold_out_group="NK")


@pytest.mark.parametrize(
    "other", ["Control", "CTRL", "non-targeting", "DMSO", "vehicle", "NTC_2", "unperturbed", "safe-targeting"]
)
def test_what_looks_like_a_control_is_said(other):
    mixed = in_turn(PAIRS, "control", ["control", other])
    (note,) = [note for note in task(mixed).notes if "Looks like a control" in note]
    assert f"--control control {other}" in note
    assert same(
        task(PAIRS, hold_out_perturbation="A"), task(mixed, ["control", other], hold_out_perturbation="A")
    )


def test_what_looks_like_no_label_is_said():
    for name in ("unassigned", "Unknown", "doublet", "no guide", "Multiplet"):
        assert any("looks like a missing label" in note for note in task(relabel(PAIRS, {"A+C": name})).notes)


@pytest.mark.parametrize(
    "labels, control",
    [([0, 24], "0"), ([0.0, 24.0], 0), ([False, True], "False"), (["0", 24], 0), ([0.0, "24"], "0"), ([b"u", b"t"], "u")],
)  # fmt: skip
def test_labels_that_are_no_text(labels, control):
    cells = in_turn(in_turn(screen(["control", "A"]), "control", [labels[0]]), "A", [labels[1]])
    t = task(cells, control)
    assert t.is_control.sum() == 20 and len(t.train_conditions) == 1


# ---------------------------------------------------------------------------------------------- guides and controls


def guided() -> ad.AnnData:
    labels = [f"non-targeting_{i:05d}" for i in range(3)] + [
        f"{t}_g{i}" for t in ("GENE3", "GENE9") for i in (1, 2)
    ]
    return screen(labels, gene=["control"] * 3 + ["GENE3"] * 2 + ["GENE9"] * 2)


def test_several_controls_by_pattern_and_by_name():
    cells = guided()
    by_pattern, by_name = (
        task(cells, "non-targeting*"),
        task(cells, [f"non-targeting_{i:05d}" for i in range(3)]),
    )
    assert by_pattern.is_control.sum() == by_name.is_control.sum() == 60
    assert same(by_pattern, by_name)
    some = task(cells, "non-targeting_00000")
    assert some.is_control.sum() == 20 and any("Looks like a control" in note for note in some.notes)
    with pytest.raises(DataError, match="control 'nontargeting\\*' is not in obs\\['p'\\]"):
        task(cells, ["nontargeting*"])


def test_an_exact_label_wins_over_a_pattern():
    cells = relabel(PAIRS, {"control": "NT*", "A": "NT1", "B": "NT2"})
    assert task(cells, "NT*").is_control.sum() == 20
    cells = relabel(PAIRS, {"control": "[('DMSO', 0.0)]"})
    assert task(cells, "[('DMSO', 0.0)]").is_control.sum() == 20
    asked = relabel(PAIRS, {"control": "NT_1", "A": "NT5E"})
    assert task(asked, "NT*", hold_out_perturbation="NT5E").is_control.sum() == 20


def test_a_pattern_that_swallows_a_measured_gene_is_said():
    cells = relabel(PAIRS, {"control": "GENE_none", "A": "GENE3"})
    assert any("name the controls one by one" in note for note in task(cells, "GENE*").notes)


def test_guides_are_joined_by_column_or_suffix():
    cells = guided()
    truth = cells.copy()
    truth.obs["p"] = truth.obs["gene"]
    plain = task(truth, hold_out_perturbation="GENE3")
    for how in ("gene", "suffix"):
        assert same(plain, task(cells, "non-targeting*", join_guides=how, hold_out_perturbation="GENE3"))


@pytest.mark.parametrize(
    "guides",
    [["{}_g1", "{}_g2"], ["{}-1", "{}-2"], ["{} sgRNA 1", "{} sgRNA 2"], ["{}sg1", "{}sg2"], ["{}.1", "{}.2"],
     ["{}_+_53715355.23-P1P2", "{}_-_53715400.23-P1P2"], ["{}_GACTTAGCATTCAGTCAACG", "{}_CCCATTAGCAGTCAACTTAG"]],
)  # fmt: skip
def test_guides_however_they_are_named(guides):
    cells = screen(["control", "GENE3", "GENE9", "GENE30"])
    named = cells
    for gene in ("GENE3", "GENE9", "GENE30"):
        named = in_turn(named, gene, [guide.format(gene) for guide in guides])
    plain = task(cells, hold_out_perturbation="GENE3")
    assert same(plain, task(named, join_guides="suffix", hold_out_perturbation="GENE3"))
    alone = task(named, hold_out_perturbation=guides[0].format("GENE3"))
    assert any("is held out while" in note and "--join-guides" in note for note in alone.notes)
    assert len(alone.targets) == 6


# -------------------------------------------------------------------------------------------------- doses and targets


def test_doses_however_they_are_written():
    cells = screen(["control", "A", "A+A", "B"])  # of which A+A plays the second dose
    dose = np.repeat([0.0, 1.0, 10.0, 1.0], 20)
    cells.obs["p"] = np.repeat(["control", "A", "A", "B"], 20)
    forms = [
        dose,
        dose.astype("float32"),
        [f"{d:g}" for d in dose],
        [f"{d:g} uM" for d in dose],
        [f"{d:g}uM" for d in dose],
    ]
    forms += [np.where(dose == 0, np.nan, dose), pd.Categorical(dose), [f"{d:.1e}" for d in dose]]
    read = []
    for form in forms:
        cells.obs["dose"] = form
        read.append(task(cells, dose_key="dose", hold_out_perturbation="A@10"))
    assert all(same(read[0], other) for other in read)
    assert set(read[0].perturbation) == {"control", "A@1", "A@10", "B@1"}
    for bad, said in [
        (np.log10(dose / 10 + 0.001), "negative doses"),
        ([f"{d}".replace(".", ",") for d in dose], "'0,0'|'1,0'|'10,0'"),
    ]:
        cells.obs["dose"] = bad
        with pytest.raises(DataError, match=said):
            task(cells, dose_key="dose")


def test_doses_of_pairs():
    cells = screen(["control", "A", "B", "A+B"], dose=["0", "1", "10", "1+10"])
    t = task(cells, dose_key="dose")
    assert set(t.perturbation) == {"control", "A@1", "B@10", "A@1+B@10"}
    cells.obs["dose"] = cells.obs["dose"].replace("1+10", "1")
    with pytest.raises(DataError, match="cannot share one dose"):
        task(cells, dose_key="dose")


def test_what_is_said_of_held_out_labels():
    lost = lambda t: [note for note in t.notes if "no measured gene by name" in note]
    doses = relabel(PAIRS, {"A": "A@1", "B": "A@3", "C": "A@10", "A+B": "B@1", "A+C": "B@2"})
    t = task(doses, hold_out_perturbation="A@3")
    assert not lost(t) and any("A was at 1, 10, and it lies between them" in note for note in t.notes)
    t = task(doses, hold_out_perturbation="A@10")
    assert not lost(t) and any("it lies outside them" in note for note in t.notes)
    assert not lost(task(guided(), "non-targeting*", hold_out_perturbation="GENE3_g1"))
    rare = relabel(PAIRS, {"A": "GENE3"})
    rare.X[:, 3] = 0
    rare.X[0, 3] = 1  # measured, and left out by every rule of variability
    t = task(rare, hold_out_perturbation="GENE3", n_genes=10)
    assert not lost(t) and "GENE3" in t.genes and t.genes[t.targets["GENE3"]] == "GENE3"
    assert "name: Z." in lost(task(relabel(PAIRS, {"C": "Z"}), hold_out_perturbation="Z"))[0]


def test_targets_are_always_kept():
    named = {"A": "GENE1", "B": "GENE2@10", "C": "GENE4_g1", "A+B": "GENE5+GENE6", "A+C": "GENE7"}
    t = task(relabel(PAIRS, named), n_genes=8, hold_out_perturbation="GENE7")
    assert {"GENE1", "GENE2", "GENE4", "GENE5", "GENE6", "GENE7"} <= set(t.genes)


def test_a_users_column_of_any_name_can_be_the_group():
    cells = screen(["control", "A"] * 2, perturbation=["x", "x", "y", "y"])
    for name in ("perturbation", "step", "source_cell", "group", "method"):
        cells.obs[name] = cells.obs["perturbation"].to_numpy()
        t = task(cells, group_key=name, hold_out_group="x")
        assert t.test_conditions == [("x", "A")] and name in t.obs


def test_read_perturbations_says_what_it_did():
    obs = pd.DataFrame({"p": ["control", "A", "B", "A+B", "B+A", "A+ctrl", "Ca2+", "nan", "a"]})
    notes = " ".join(read_perturbations(obs, "p", "control").notes)
    for said in ("'B+A'", "'A+ctrl'", "left whole: 'Ca2+'", "'nan' (1 cells)", "'A', 'a' differ"):
        assert said in notes


def test_genes_of_perturbations_to_ask_about_are_kept():
    assert "GENE50" not in task(PAIRS, n_genes=5).genes
    t = task(PAIRS, n_genes=5, keep_genes=["GENE50"])
    assert "GENE50" in t.genes and t.genes[t.targets["GENE50"]] == "GENE50"


def test_a_leaderboard_takes_either_spelling():
    from waddington_nb import leaderboard

    tables = [
        leaderboard(PAIRS, {}, over="perturbation", perturbation_key="p", units=[u]) for u in ("A+B", "B+A")
    ]
    assert tables[0].equals(tables[1])
