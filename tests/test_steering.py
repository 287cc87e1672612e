"""Steering by a screen, hidden perturbations and the laboratory: what must hold, and what is refused of each."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file
from test_prediction import screen as knock_outs

import waddington_nb as wd
from waddington_nb import cli
from waddington_nb.core import DataError
from waddington_nb.laboratory import IDLE, Laboratory, Trial, act_on, carry_out
from waddington_nb.meaning import plan_changes
from waddington_nb.signatures import (
    answer_sets,
    make_units,
    name_cause,
    name_hidden,
    read_screen,
    responds,
    visible,
)
from waddington_nb.steering import THEN, beam_search

QUICK = {"stages": [], "steps": 2}
KEYS = ["--perturbation-key", "perturbation", "--control", "control"]


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    return knock_outs()


@pytest.fixture(scope="module")
def task(cells) -> wd.Task:
    return wd.Task(cells, group_key="batch")


@pytest.fixture(scope="module")
def model(task):
    return wd.fit(task, stages=[], seed=0, n_latent=6)


def of(cells: ad.AnnData, label: str) -> ad.AnnData:
    return cells[(cells.obs["perturbation"] == label).to_numpy()].copy()


@pytest.fixture(scope="module")
def plan(model, cells):
    return wd.steer(model, source=of(cells, "control"), target=of(cells, "gene2"), seed=0, **QUICK)


def test_the_intervention_that_made_the_target_is_first(plan):
    assert plan.best[0] == "gene2" and plan.singles["sequence"][0] == "gene2" and not plan.abstains
    assert plan.methods["method"][0] == "no intervention" and plan.methods["gain"][0] == 0


def test_each_intervention_of_a_plan_has_a_change_of_its_own(plan):
    cells = plan.simulate(["gene2", "gene1"])
    one, two = plan_changes(cells)
    assert [(c.group, c.perturbation) for c in (one, two)] == [("step 1", "gene2"), ("step 2", "gene1")]
    means = [cells[(cells.obs["step"] == i).to_numpy()].X.mean(axis=0) for i in range(3)]
    assert np.allclose(one.y * one.scale, means[1] - means[0], atol=1e-4)
    assert np.allclose(two.y * two.scale, means[2] - means[1], atol=1e-4)


def test_every_score_has_its_interval_and_null(plan):
    for table in (plan.table, plan.singles, plan.methods):
        assert (table["ci_low"] <= table["distance"]).all() and (table["distance"] <= table["ci_high"]).all()
        assert table["null"].nunique() == 1 and table["arrives"].between(0, 1).all()


def test_equal_seeds_give_equal_plans(model, cells, plan):
    again = wd.steer(model, source=of(cells, "control"), target=of(cells, "gene2"), seed=0, **QUICK)
    pd.testing.assert_frame_equal(again.table, plan.table)
    assert again.policy_bytes() == plan.policy_bytes()


def test_forbidden_interventions_are_in_no_plan(model, cells):
    plan = wd.steer(model, source=of(cells, "control"), target=of(cells, "gene2"), forbid=["gene2"], **QUICK)
    assert "gene2" not in plan.candidates
    assert not any("gene2" in sequence.split(THEN) for sequence in plan.table["sequence"])


def test_sets_are_told_from_sequences(model, cells):
    asked = ["gene0", "gene1", "gene1+gene0"]
    plan = wd.steer(
        model, source=of(cells, "control"), target=of(cells, "gene0+gene1"), candidates=asked, **QUICK
    )
    assert "gene0+gene1" in plan.candidates
    held = plan.table["sequence"].str.contains(r"\+", regex=True)
    assert held.any() and (plan.table["held_at_once"] == held).all()


def test_costs_keep_dear_interventions_out(model, cells):
    costs = {"gene2": 5.0}
    plan = wd.steer(model, source=of(cells, "control"), target=of(cells, "gene2"), costs=costs, **QUICK)
    assert plan.table["sequence"][0] != "gene2"


def test_labels_name_cells_of_a_task(model, task, plan):
    named = wd.steer(model, source="control", target="gene2", cells=task, seed=0, **QUICK)
    assert named.best[0] == "gene2" and "from control to gene2" in named.verdict()


def test_an_inert_screen_abstains():
    "Four knock-outs that do nothing; the target is made otherwise."
    rng, genes = np.random.default_rng(0), [f"gene{i}" for i in range(30)]
    label = np.repeat(["control", "gene0", "gene1", "gene2", "gene3"], 60)
    rate = rng.gamma(3.0, 2.0, 30)
    obs = pd.DataFrame({"perturbation": label}, [f"c{i}" for i in range(len(label))])
    inert = ad.AnnData(
        rng.poisson(rate, (len(label), 30)).astype("float32"), obs=obs, var=pd.DataFrame(index=genes)
    )
    other = rate * np.exp(rng.normal(0, 0.6, 30))
    there = ad.AnnData(rng.poisson(other, (60, 30)).astype("float32"), var=pd.DataFrame(index=genes))
    plan = wd.steer(
        wd.fit(wd.Task(inert), stages=[], n_latent=6), source=of(inert, "control"), target=there, **QUICK
    )
    assert plan.abstains and plan.best == () and plan.verdict().startswith("Nothing in this screen")
    with pytest.raises(DataError, match="no policy"):
        plan.simulate()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"candidates": ["gene9"]}, "does not hold 'gene9'"),
        ({"forbid": ["gene7"]}, "does not hold 'gene7'"),
        ({"forbid": ["gene0", "gene1", "gene2", "gene3", "gene0+gene1"]}, "all candidates are forbidden"),
        ({"candidates": []}, "all candidates are forbidden"),
        ({"target": "source"}, "same"),
        ({"target": "few"}, "target has 4 cells, 10 needed"),
        ({"target": "half"}, "cannot be told from source"),
        ({"target": "gene2"}, "give cells, or the task"),
        ({"target": np.zeros((20, 3))}, "give cells × 30 genes"),
        ({"steps": 0}, "at least 1 intervention"),
        ({"costs": -1.0}, "at least 0"),
        ({"costs": {"gene8": 1.0}}, "no candidate"),
    ],
)
def test_one_clear_line(model, cells, change, says):
    control = of(cells, "control")
    special = {"source": control, "few": control[:4].copy(), "half": control[1::2].copy()}
    target = change.get("target", of(cells, "gene2"))
    change = {**QUICK, **change, "target": special.get(target, target) if isinstance(target, str) else target}
    source = control[::2].copy() if isinstance(target, str) and target == "half" else control
    with pytest.raises(DataError, match=says) as error:
        wd.steer(model, source=source, **change)
    assert "\n" not in str(error.value)


def test_labels_that_are_not_there_and_models_that_are_none(model, task):
    with pytest.raises(DataError, match="no perturbation and no group"):
        wd.steer(model, source="controls", target="gene2", cells=task)
    with pytest.raises(DataError, match="wd.fit"):
        wd.steer("model", source="control", target="gene2")


def test_a_sequence_that_is_no_candidate_is_refused(plan):
    with pytest.raises(DataError, match="no candidate of this plan"):
        plan.simulate(["gene9"])


def test_the_beam_finds_what_greed_misses():
    "The first step of the best sequence is the worst alone."
    moves = {"a": lambda x: x + 1, "b": lambda x: -3 * x, "c": lambda x: x - 2}
    found = lambda width: beam_search(
        np.zeros((1, 1)),
        lambda x, name: moves[name](x),
        list(moves),
        2,
        worth=lambda x, _: -abs(x[0, 0] - 6),
        width=width,
    )[0]
    assert found(1).worth < found(3).worth == 0 and found(3).steps == ("c", "b")


def test_the_command_leaves_a_plan_and_a_page(tmp_path, cells, capsys):
    path, out = tmp_path / "cells.h5ad", tmp_path / "out"
    cells.write_h5ad(path)
    asked = [
        "steer",
        str(path),
        *KEYS,
        "--from",
        "control",
        "--to",
        "gene2",
        "--steps",
        "1",
        "--latent",
        "6",
        "--out",
        str(out),
    ]
    assert cli.main(asked) == 0
    rows = pd.read_csv(out / "plan.csv")
    assert {
        "rank",
        "sequence",
        "arrives",
        "distance",
        "interventions",
        "ci_low",
        "ci_high",
        "null",
        "held_at_once",
    } <= set(rows)
    assert rows["sequence"][0] == "gene2" and "gene2" in (out / "report.html").read_text()
    assert load_file(out / "policy.safetensors") and wd.load_model(out / "model").predict
    capsys.readouterr()
    for change, says in [
        (["--to", "control"], "both 'control'"),
        (["--to", "gene5"], "no perturbation and no group"),
        (["--candidates", "gene9"], "does not hold"),
        (["--state-key", "fate"], "fate"),
    ]:
        assert cli.main([*asked[:-1], str(tmp_path / "other"), *change]) == 2
        said = capsys.readouterr().err
        assert says in said and said.count("\n") == 1
    assert not (tmp_path / "other" / "plan.csv").exists()


def screen_of_guides(seed: int = 0) -> ad.AnnData:
    "Three knock-outs of measured genes (the third inert) and control, three guides each, two replicates."
    rng = np.random.default_rng(seed)
    effect = {
        "gene0": rng.normal(0, 0.6, 40),
        "gene1": rng.normal(0, 0.6, 40),
        "gene2": np.zeros(40),
        "control": np.zeros(40),
    }
    rows = [(t, f"{t}_g{i}", b) for t in effect for i in range(3) for b in ("b1", "b2") for _ in range(30)]
    obs = pd.DataFrame(rows, columns=["perturbation", "guide", "batch"]).rename(index=str)
    x = rng.poisson(rng.gamma(3.0, 1.0, 40) * np.exp([effect[t] for t, *_ in rows]))
    own = {"gene0": 0, "gene1": 1, "gene2": 2}
    for i, (t, *_) in enumerate(rows):
        if t in own:
            x[i, own[t]] = 0
    return ad.AnnData(x.astype("float32"), obs=obs, var=pd.DataFrame(index=[f"gene{i}" for i in range(40)]))


@pytest.fixture(scope="module")
def guides():
    return read_screen(screen_of_guides(), guide_key="guide", batch_key="batch")


def test_no_candidate_s_own_gene_is_left(guides):
    assert guides.masked == ("gene0", "gene1", "gene2") and guides.x.shape[1] == 37


def test_the_own_gene_leaves_no_trace_in_depth():
    "Another level of the masked genes changes nothing."
    cells = screen_of_guides()
    other = cells.copy()
    other.X[:, :3] += 50
    one, two = (read_screen(c, guide_key="guide", batch_key="batch") for c in (cells, other))
    assert np.array_equal(one.x, two.x)


def test_a_hidden_guide_sees_neither_itself_nor_its_replicate(guides):
    units = make_units(guides)
    for query in range(len(units.table)):
        seen = units.table[visible(units, query)]
        hidden = units.table.iloc[query]
        assert (seen["guide"] != hidden["guide"]).all() and (seen["batch"] != hidden["batch"]).all()


def test_what_is_hidden_does_not_reach_the_scores_of_others(guides):
    "Shuffling the labels of the query's own guide leaves its scores as they are."
    units = make_units(guides, axes=8, without="b1")
    found = name_hidden(units, "both", batches=["b1"])
    strong = (found.table["target"] != "gene2").to_numpy()
    assert (found.ranks[strong] == 1).all() and found.scores.shape == (9, 3)


def test_sets_hold_the_right_one_and_abstentions_hold_all(guides):
    found = name_hidden(make_units(guides, axes=8), "both")
    silent = (found.table["target"] == "gene2").to_numpy()
    sets = answer_sets(found, 0.9, silent=silent)
    assert sets[silent].all() and sets[np.arange(len(sets)), found.truth].mean() >= 0.9
    assert sets[~silent].sum() < sets[~silent].size


def test_inert_knock_outs_do_not_respond(guides):
    units = make_units(guides)
    p = pd.Series(responds(units)).groupby(units.table["target"]).median()
    assert p[["gene0", "gene1"]].max() < p["gene2"]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda s: read_screen(screen_of_guides(), guide_key="guides"), "guides"),
        (lambda s: read_screen(screen_of_guides()[:200].copy()), "a choice needs two|control"),
        (lambda s: make_units(s, least=100), "no guide has 100 cells"),
        (lambda s: name_hidden(make_units(s), "telepathy"), "'telepathy' is unknown"),
        (lambda s: name_hidden(make_units(s), "both", least=1000), "nothing can be hidden"),
        (lambda s: name_cause(s.x[:20], s), "say to which"),
        (lambda s: name_cause(s.x[:20], s, batch="b9"), "no replicate 'b9'"),
        (lambda s: name_cause(s.x[:2], s, batch="b1"), "too few"),
        (lambda s: name_cause(s.x[:20, :5], s, batch="b1"), "the screen's genes"),
    ],
)
def test_screens_are_refused_in_one_line(guides, call, says):
    with pytest.raises(DataError, match=says) as error:
        call(guides)
    assert "\n" not in str(error.value)


def test_trials_do_not_depend_on_their_order():
    "The laboratory carries out what is asked, a start that is none is refused, and doing nothing keeps cells."
    lab = Laboratory(seed=0)
    a, b = lab.places[1], lab.places[2]
    told = carry_out(lab, [Trial(a, b, [IDLE]), Trial(b, b, [])], n=40)
    assert told["arrives"].tolist() == [0.0, 1.0] and (told["interventions"] == 0).all()
    with pytest.raises(DataError, match="no cells rest in"):
        lab.cells("nowhere", 5, np.random.default_rng(0))


def test_held_regulators_are_held():
    "Without noise and with Gata1 held on for ever after, an empty cell fills."
    lab = Laboratory(seed=0)
    x = act_on(np.zeros((2, 11)), np.array([0, IDLE]), np.random.default_rng(0), sigma=0.0)
    assert x[0].max() > 0.5 and x[1].max() == 0 and lab.levels.shape == (6, 11)
