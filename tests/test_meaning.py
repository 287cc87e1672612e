"""Pathways and regulators: a null that holds, agreement that is earned, one clear line for sets and networks that do not fit."""

import gzip
import hashlib
import importlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from conftest import ARMS, GROUPS, write_sets
from scipy import stats

import waddington_nb as wd
from waddington_nb import meaning
from waddington_nb.courses import look_for, order_agreement, rna_of, time_courses, timed_course
from waddington_nb.meaning import (
    change_between,
    enrich,
    false_and_found,
    map_genes,
    mask_targets,
    planted_screen,
    read_sets,
    read_signed_network,
    weighted_test,
    wider_changes,
)

libraries = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("gseapy", "decoupler")),
    reason="gseapy and decoupler are not installed (extra 'meaning')",
)


@pytest.fixture(scope="module")
def screen():
    "A planted screen as a change, with its sets and a network whose regulators lower them."
    made = planted_screen(0.6, 0, size=25, cells=60)
    names = np.array([f"GENE{i}" for i in range(len(made.weights))])
    sets = {f"SET{j}": names[made.weights[:, j] > 0].tolist() for j in range(made.weights.shape[1])}
    edges = [(f"R{name[3:]}", gene, -1.0) for name, members in sets.items() for gene in members]
    change = change_between(made.before, made.after, names, perturbation="GENE3")
    return change, sets, pd.DataFrame(edges, columns=["source", "target", "weight"])


@pytest.mark.parametrize("correlation", [0.0, 0.1, 0.3])
def test_the_null_holds_with_and_without_correlation(correlation):
    draws = pd.DataFrame(
        [false_and_found(planted_screen(0.0, s, planted=0, correlation=correlation)) for s in range(150)]
    )
    assert (
        stats.binomtest(int((draws["false"] > 0).sum()), len(draws), 0.05, alternative="greater").pvalue
        > 0.01
    )
    if correlation:
        assert draws["false_shuffled"].mean() > 0.5


def test_planted_sets_are_found_and_others_are_not():
    draws = pd.DataFrame([false_and_found(planted_screen(0.6, s)) for s in range(50)])
    assert draws["power"].mean() > 0.95 and draws["false"].mean() < 0.06


def test_a_set_that_a_strong_response_leaves_out_is_not_called_down():
    "A tenth of all genes rises a lot, so the mean of all genes does; the rest only seems to fall."
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(2, 200, 1000))
    after[:, :100] += 3
    left_out = np.zeros((1000, 1))
    left_out[200:400] = 1
    found = weighted_test(change_between(before, after, np.arange(1000)), left_out)
    assert found.p[0] > 0.05 > found.p_shuffled[0]


def test_scaling_all_changes_changes_nothing_and_signs_turn_scores():
    made = planted_screen(0.5, 1)
    change = change_between(made.before, made.after, np.arange(len(made.weights)))
    found = weighted_test(change, made.weights)
    assert np.allclose(
        weighted_test(change._replace(y=3 * change.y, error=3 * change.error), made.weights).z, found.z
    )
    assert np.allclose(weighted_test(change, -made.weights).z, -found.z)
    assert np.allclose(weighted_test(change._replace(y=-change.y), made.weights).p, found.p)


def test_own_targets_are_masked_in_combinations_and_doses(screen):
    change = screen[0]
    for label, own in (("GENE3", {"GENE3"}), ("GENE3+GENE7", {"GENE3", "GENE7"}), ("drug@10", set())):
        (masked,) = mask_targets([change._replace(perturbation=label)])
        assert set(change.genes) - set(masked.genes) == own
        assert masked.residuals.shape[1] == masked.scale.size == len(masked.genes)


@libraries
def test_calls_are_those_that_beat_both_nulls(screen):
    change, sets, network = screen
    table = enrich([change], sets, network)
    called = table[table["called"]]
    assert set(called["name"]) == {f"SET{i}" for i in range(4)} | {f"R{i}" for i in range(4)}
    assert (called["q"] <= 0.05).all() and (called["q_shuffled"] <= 0.05).all()
    assert (called["score"] * np.where(called["kind"] == "set", 1, -1) > 0).all()
    assert (
        table.set_index("name").loc["SET0", "size"] == 24 and table.attrs["universe"] == len(change.genes) - 1
    )
    assert table.equals(enrich([change], sets, network))


@libraries
def test_the_universe_is_that_asked_for(screen):
    change, sets, _ = screen
    table = enrich([change], sets, universe=change.genes[:500])
    assert table.attrs["universe"] == 499 and set(table["name"]) == {f"SET{i}" for i in range(20)}
    assert "20 of 40 sets" in table.attrs["notes"][0]


@libraries
def test_one_false_discovery_rate_over_all_conditions(screen):
    change, sets, _ = screen
    many = [
        change._replace(perturbation=f"p{i}", y=y)
        for i, y in enumerate([change.y, *np.zeros((9, len(change.y)))])
    ]
    one, ten = enrich(many[:1], sets), enrich(many, sets)
    assert (ten["q"][: len(one)] >= one["q"] - 1e-12).all() and not ten["called"][len(one) :].any()


@libraries
def test_genes_beyond_their_interval(screen):
    change, sets, _ = screen
    low = np.where(np.arange(len(change.genes)) < 100, 0.1, -1.0)
    intervals = pd.DataFrame(
        {"group": "all", "perturbation": "GENE3", "gene": change.genes, "low": low, "high": 1.0}
    )
    table = enrich([change], sets, intervals=intervals)
    beyond = table[table["kind"] == "beyond interval"].set_index("name")
    assert beyond["called"][:4].all() and not beyond["called"][4:].any() and beyond.loc["SET0", "score"] > 15


def test_an_order_is_found_only_where_there_is_one():
    rng, genes = np.random.default_rng(0), [f"g{i}" for i in range(200)]
    time, halfway = np.repeat(np.arange(5.0), 40), rng.uniform(0.5, 3.5, 200)
    course = lambda turn: timed_course(
        rng.normal(size=(200, 200)) + 3 / (1 + np.exp(-3 * (time[:, None] - turn))), time, genes
    )
    real = course(halfway)
    assert (
        order_agreement(course(halfway), real)["p"]
        < 0.01
        < 0.5
        < order_agreement(course(4 - halfway), real)["p"]
    )
    unrelated = [order_agreement(course(rng.permutation(halfway)), real)["p"] for _ in range(20)]
    assert np.mean(np.array(unrelated) < 0.05) <= 0.2


GMT = "A\tabout\tGENE1\tGENE2\n"


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "is empty; give a .gmt file"),
        (GMT + "B\tabout\n", "line 2: no set"),
        (GMT + "B GENE1 GENE2\n", "line 2: no set"),
        (GMT + "\n" + GMT, "line 3: set 'A' is there twice"),
    ],
)
def test_a_malformed_gmt_is_refused_with_its_line(tmp_path, text, said):
    (tmp_path / "sets.gmt").write_text(text)
    with pytest.raises(wd.DataError, match=said):
        read_sets(tmp_path / "sets.gmt")


def test_a_packed_or_missing_gmt_is_refused(tmp_path):
    (tmp_path / "sets.gmt").write_bytes(gzip.compress(GMT.encode()))
    with pytest.raises(wd.DataError, match="as text .*give a .gmt file"):
        read_sets(tmp_path / "sets.gmt")
    with pytest.raises(
        wd.DataError, match="no file of gene sets 'nowhere.gmt'; give a .gmt file, or a name .hallmark"
    ):
        read_sets("nowhere.gmt")


def test_no_internet_and_no_cache_names_the_place_for_the_file(tmp_path, monkeypatch):
    import requests

    def offline(*arguments, **options):
        raise requests.ConnectionError("no route")

    monkeypatch.setattr(requests, "get", offline)
    monkeypatch.setenv("WADDINGTON_CACHE", str(tmp_path))
    monkeypatch.delenv("WADDINGTON_DATA", raising=False)
    with pytest.raises(
        wd.DataError, match="cannot download .*get it by hand and save it as .*h.all.v7.0.symbols.gmt"
    ):
        read_sets("hallmark")


@pytest.fixture
def published(tmp_path, monkeypatch):
    "A server of our own in place of Zenodo and OmniPath, with small files of their form; the addresses asked for."
    import requests

    folder, asked, get = tmp_path / "published", [], requests.get
    (folder / "records/8192729/files").mkdir(parents=True)
    (folder / "interactions").mkdir()
    (folder / "records/8192729/files/CollecTRI_regulons.csv").write_text(COLLECTRI)
    (folder / "interactions/index.html").write_text(DOROTHEA.replace(" ", "\t"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def ours(url, *arguments, **options):
        asked.append(url)
        there = f"http://127.0.0.1:{server.server_port}/" + url.split("/", 3)[3]
        return get(there, *arguments, **options)

    monkeypatch.setattr(requests, "get", ours)
    monkeypatch.setenv("WADDINGTON_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("WADDINGTON_DATA", raising=False)
    yield folder, asked
    server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments): ...


COLLECTRI = """source,target,weight,resources,references,sign_decision
STAT1,IRF1,1,CollecTRI:ExTRI;TRRUST_CollecTRI,CollecTRI:1,PMID
STAT1,MYC,-1,CollecTRI:ExTRI,CollecTRI:2,PMID
MYC,CCND1,1,CollecTRI:ExTRI,CollecTRI:3,PMID
"""
DOROTHEA = """source target source_genesymbol target_genesymbol is_directed is_stimulation is_inhibition \
consensus_direction consensus_stimulation consensus_inhibition dorothea_level
P1 Q1 STAT1 IRF1 1 1 0 1 1 0 A
P1 Q2 STAT1 MYC 1 0 1 1 0 1 B;A
P2 Q3 MYC CCND1 1 1 1 1 1 0 C
"""


@libraries
@pytest.mark.parametrize("name, last", [("collectri", 1.0), ("dorothea", 1 / 3)])
def test_a_named_network_is_fetched_once_and_checked_at_each_read(published, tmp_path, name, last):
    (folder, asked), cached = published, tmp_path / "cache" / f"{name}.csv"
    first = read_signed_network(name)
    assert first[["source", "target"]].values.tolist() == [
        ["MYC", "CCND1"],
        ["STAT1", "IRF1"],
        ["STAT1", "MYC"],
    ]
    assert np.allclose(first["weight"].iloc[0], last) and np.sign(first["weight"]).tolist() == [1, 1, -1]
    assert asked[0].startswith(meaning.NAMED_NETWORKS[name])
    assert (
        cached.with_name(f"{name}.csv.sha256").read_text().strip()
        == hashlib.sha256(cached.read_bytes()).hexdigest()
    )
    assert read_signed_network(name).equals(first) and len(asked) == 1
    cached.write_text(cached.read_text().replace("IRF1", "IRF9"))  # spoilt on the disk: fetched again
    assert read_signed_network(name).equals(first) and len(asked) == 2
    for file in filter(Path.is_file, folder.rglob("*")):
        file.write_text(file.read_text().replace("IRF1", "IRF2"))
    cached.unlink()  # changed where it is published
    with pytest.raises(wd.DataError, match=f"does not have the expected hash .*{name}.csv"):
        read_signed_network(name)


@libraries
def test_a_named_network_that_cannot_be_fetched_or_read(published, tmp_path, monkeypatch):
    import requests

    for file in filter(Path.is_file, published[0].rglob("*")):
        file.write_text("<html>sign in</html>")
    with pytest.raises(
        wd.DataError, match="decoupler cannot read what https://zenodo.org.*give network collectri"
    ):
        read_signed_network("collectri")

    def offline(*arguments, **options):
        raise requests.ConnectionError("no route")

    monkeypatch.setattr(requests, "get", offline)
    said = r"cannot download https://omnipathdb.org.*decoupler.op.dorothea\(\).to_csv\('dorothea.csv'\), and save it as .*"
    with pytest.raises(wd.DataError, match=said + "cache/dorothea.csv"):
        read_signed_network("dorothea")
    (tmp_path / "cache/dorothea.csv").write_text("source,target,weight\nSTAT1,IRF1,1\n")
    assert len(read_signed_network("dorothea")) == 1


def test_networks_without_signs_or_with_doubtful_ones(screen):
    network = screen[2]
    with pytest.raises(wd.DataError, match="the network has no signs: it has no column 'weight' or 'mor'"):
        read_signed_network(network.drop(columns="weight"))
    with pytest.raises(wd.DataError, match="no column 'source' or 'tf'"):
        read_signed_network(network.drop(columns="source"))
    with pytest.raises(wd.DataError, match="the sign 'maybe'; write numbers, or Activation and Repression"):
        read_signed_network(network.assign(weight="maybe"))
    with pytest.raises(wd.DataError, match="no signs other than 0"):
        read_signed_network(network.assign(weight="Unknown"))
    twice = read_signed_network(pd.concat([network, network]))
    assert len(twice) == len(network) and "1000 edges there again were left out" in twice.attrs["notes"][0]


@pytest.mark.parametrize(
    "rename, said",
    [
        (lambda g: f"ENSG{int(g[4:]):011d}", "Ensembl ids: give their symbols"),
        (str.capitalize, "differ in capitals, as mouse and human symbols do"),
        (lambda g: f"probe{g}", "name both alike"),
    ],
)
def test_sets_in_another_naming_say_how_many_match(screen, rename, said):
    change, sets, _ = screen
    other = change._replace(genes=np.array([rename(g) for g in change.genes]), perturbation="p")
    with pytest.raises(wd.DataError, match=f"0 of 2000 genes are in the sets; .*{said}"):
        enrich([other], sets)


def test_sizes_that_cannot_be_scored(screen):
    change, sets, network = screen
    few = [meaning._without(change, np.arange(len(change.genes)) < 99)]
    with pytest.raises(
        wd.DataError, match="99 genes were measured; enrichment needs 100|98 genes were measured"
    ):
        enrich(few, sets)
    with pytest.raises(
        wd.DataError, match="no set has 40 to 500 measured members .the largest has 25.; keep more genes"
    ):
        enrich([change], sets, min_size=40)
    with pytest.raises(wd.DataError, match="no regulator has 26 measured targets .the most is 25."):
        enrich([change], network=network, min_targets=26)
    with pytest.raises(wd.DataError, match="nothing to look for"):
        enrich([change])


def test_missing_libraries_say_what_to_install(screen, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(meaning, "import_module", missing)
    change, sets, network = screen
    with pytest.raises(wd.DataError, match=r"needs gseapy, .*pip install 'waddington_nb\[meaning\]'"):
        enrich([change], sets)
    with pytest.raises(wd.DataError, match=r"needs decoupler, .*pip install 'waddington_nb\[meaning\]'"):
        enrich([change], network=network)


def test_the_libraries_load_when_they_are_used():
    import subprocess
    import sys

    code = "import sys, waddington_nb.meaning, waddington_nb.cli; print([m for m in ('gseapy', 'decoupler') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    "options, said",
    [
        (["--sets", "nowhere.gmt"], "no file of gene sets 'nowhere.gmt'"),
        (["--regulators", "nowhere.csv"], "cannot read network nowhere.csv"),
        (["--universe", "all"], "--universe is for --sets and --regulators"),
        (["--sets", "hallmark", "--universe", "20"], "no gene is added to the 40 predicted ones"),
        (["--sets", "hallmark", "--universe", "none"], "'none' is not a whole number"),
        (
            ["--sets", "hallmark", "--universe", "all", "--pseudotime", "4", "--hold-out-time", "1"],
            "--universe cannot be combined with --pseudotime, which depends on the genes; use --genes",
        ),
    ],
)
def test_the_command_line_refuses_before_it_fits(cells, tmp_path, capsys, options, said):
    from waddington_nb.cli import main

    cells.write_h5ad(tmp_path / "cells.h5ad")
    asked = ["run", str(tmp_path / "cells.h5ad"), *ARMS]
    assert main([*asked, "--out", str(tmp_path / "out"), *options]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line


@pytest.fixture(scope="module")
def timed():
    "Cells at four times: forty genes rise early, forty late."
    rng, hours, genes = np.random.default_rng(0), np.repeat([0, 1, 2, 4], 40), np.arange(160)
    turn = np.where(genes < 40, 0.7, 2.5)
    rate = 2 + 8 * (genes < 80) / (1 + np.exp(-3 * (hours[:, None] - turn)))
    obs = pd.DataFrame({"hours": hours, "arm": "dex"}, index=[f"c{i}" for i in range(len(hours))])
    cells = ad.AnnData(rng.poisson(rate).astype("float32"), obs=obs)
    cells.var_names = [f"GENE{i}" for i in genes]
    places = {"EARLY": range(40), "LATE": range(40, 80), "STILL": range(100, 140)}
    return cells, {name: [f"GENE{i}" for i in place] for name, place in places.items()}


@libraries
@pytest.mark.parametrize("universe", [[], ["--genes", "110", "--universe", "all"]])
def test_sets_along_held_out_times(timed, tmp_path, universe):
    from waddington_nb.cli import main

    cells, sets = timed
    cells.write_h5ad(tmp_path / "cells.h5ad")
    write_sets(tmp_path / "sets.gmt", sets)
    asked = ["run", str(tmp_path / "cells.h5ad"), "--perturbation-key", "arm", "--control", "dex"]
    asked += ["--time-key", "hours", "--hold-out-time", "2", "--stages", "none", "--latent", "5"]
    asked += universe
    assert main([*asked, "--sets", str(tmp_path / "sets.gmt"), "--out", str(tmp_path / "out")]) == 0
    table = pd.read_csv(tmp_path / "out" / "enrichment.csv").set_index(["cells", "name"])
    assert table.loc[[("predicted", "EARLY"), ("real", "EARLY")], "called"].all()
    assert {"course_0.png", "genes_0.png", "sets_0.png"} <= {
        p.name for p in (tmp_path / "out/figures").iterdir()
    }
    page = (tmp_path / "out" / "report.html").read_text()
    assert "straight lines" in page and "What the moves mean" in page
    assert ("50 genes of the universe were not predicted" in page) == bool(universe)
    if universe:  # nothing of the map is left for a kept model of times
        assert set(table["size"]) == {40}
        again = [
            "predict",
            "--model",
            str(tmp_path / "out/model"),
            str(tmp_path / "cells.h5ad"),
            "--time",
            "2",
        ]
        again += ["--sets", str(tmp_path / "sets.gmt"), "--universe", "all", "--out", str(tmp_path / "new")]
        assert main(again) == 2


@libraries
def test_sets_of_a_grid_that_was_predicted(tmp_path, capsys):
    from waddington_nb.cli import main

    rng, made = np.random.default_rng(0), [(g, p) for g in "abc" for p in ("control", "IFNB")][:-1]
    obs = pd.DataFrame([arm for arm in made for _ in range(50)], columns=["cell_type", "perturbation"])
    rate = 2 + 6 * ((obs["perturbation"] == "IFNB").to_numpy()[:, None] & (np.arange(160) < 40))
    cells = ad.AnnData(rng.poisson(rate).astype("float32"), obs=obs.set_index(obs.index.astype(str)))
    cells.var_names = [f"GENE{i}" for i in range(160)]
    cells.write_h5ad(tmp_path / "cells.h5ad")
    write_sets(tmp_path / "sets.gmt", {"UP": cells.var_names[:40], "STILL": cells.var_names[100:140]})
    asked = ["predict", str(tmp_path / "cells.h5ad"), *GROUPS, "--stages", "none", "--latent", "5"]
    sets = ["--sets", str(tmp_path / "sets.gmt")]
    assert main([*asked, *sets, "--genes", "all", "--out", str(tmp_path / "out")]) == 0
    table = pd.read_csv(tmp_path / "out" / "enrichment.csv").set_index(["cells", "name"])
    assert table.loc[("predicted", "UP"), "called"] and not table.loc[("predicted", "STILL"), "called"]
    assert ad.read_h5ad(tmp_path / "out" / "predicted.h5ad").shape == (50, 160)

    # a map to further genes is kept beside the model, and new cells are scored on them
    wide = [*asked, *sets, "--genes", "110", "--universe", "all"]
    assert main([*wide, "--out", str(tmp_path / "wide")]) == 0
    first = pd.read_csv(tmp_path / "wide" / "enrichment.csv").set_index("name")
    cells[cells.obs["cell_type"] == "c", 5:].write_h5ad(tmp_path / "new.h5ad")
    ask = ["predict", str(tmp_path / "new.h5ad"), "--perturbation", "IFNB", "--group-key", "cell_type", *sets]
    kept = [*ask, "--model", str(tmp_path / "wide/model"), "--universe"]
    assert main([*kept, "all", "--out", str(tmp_path / "new")]) == 0
    found = pd.read_csv(tmp_path / "new" / "enrichment.csv").set_index("name")
    assert found.loc["UP", "size"] == 35 and found.loc["STILL", "size"] == 40 == first.loc["UP", "size"]
    assert found["called"].tolist() == first["called"].tolist() and abs(found["z"] - first["z"]).max() < 2
    for without, said in [
        ([*kept, "120"], "a kept model has the universe that it was fitted with; use --universe all"),
        (
            [*ask, "--model", str(tmp_path / "out/model"), "--universe", "all"],
            "keeps no map of further genes",
        ),
    ]:
        capsys.readouterr()
        assert main([*without, "--out", str(tmp_path / "no")]) == 2 and said in capsys.readouterr().err


def test_sets_turn_in_their_order_along_times(timed):
    cells, sets = timed
    task = wd.TimeCourseTask({"rna": cells}, "hours", 2)
    found = time_courses(wd.fit(task, [], seed=0, n_latent=5), task, task.arms[0])
    for course in found.values():
        turn = wd.enrich_course(course, sets).drop_duplicates("name").set_index("name")["turn"]
        assert turn["EARLY"] < turn["LATE"]
    straight = found["straight lines"].y
    assert np.allclose(straight[2], (2 * straight[1] + straight[3]) / 3)


def test_cells_without_rna_have_no_sets():
    with pytest.raises(wd.DataError, match="need RNA, and the cells have none"):
        look_for("hallmark", None, ())
    with pytest.raises(wd.DataError, match="need an RNA modality, and here are atac"):
        rna_of(["atac"])


def test_a_wider_task_must_hold_out_the_same_cells(cells):
    asked = {"group_key": "cell_type", "n_genes": 20}
    task = wd.Task(cells, hold_out_group="NK", **asked)
    for other in (
        wd.Task(cells, hold_out_group="T", **asked | {"n_genes": 40}),
        wd.Task(cells[:200], hold_out_group="NK", **asked),
    ):
        with pytest.raises(wd.DataError, match="holds out other cells"):
            map_genes(task, other)
    with pytest.raises(wd.DataError, match="no gene is added to the 20 predicted ones"):
        map_genes(task, task)
    wide = wd.Task(cells, hold_out_group="NK", **asked | {"n_genes": 40})
    predicted, more = wd.mean_shift(task), map_genes(task, wide)
    with pytest.raises(wd.DataError, match="the predicted cells lack"):
        wider_changes(predicted[:, 1:], more)
    predicted.obs["source_cell"] = "nobody"
    with pytest.raises(wd.DataError, match="start cell 'nobody' is not in the wider task"):
        wider_changes(predicted, more)
