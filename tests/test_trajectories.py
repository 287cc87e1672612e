"""Trajectories against references, closed forms and planted truth; genes and the peaks near them; bad input to both."""

import gzip
from itertools import product

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist

from waddington_nb import interpretation as view
from waddington_nb import metrics
from waddington_nb import trajectories as tr
from waddington_nb.core import DataError
from waddington_nb.representations import fit_pca


def paths(seed: int, n: int = 7, m: int = 5, d: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d))


# ---------------------------------------------------------------------------------------------------------- alignment


@pytest.mark.parametrize("seed", range(3))
def test_dtw_and_its_limits_equal_dtaidistance(seed):
    from dtaidistance import dtw_ndim

    a, b = paths(seed)
    reference = dtw_ndim.distance(a, b)
    cost = cdist(a, b, "sqeuclidean")
    assert np.isclose(tr.dtw(a, b), reference)
    assert np.isclose(np.sqrt(tr.align_with_gaps(cost, np.inf).cost), reference)
    assert np.isclose(np.sqrt(tr.soft_dtw(a, b, 1e-5)), reference, atol=1e-3)


def test_soft_dtw_of_one_point_is_a_sum_and_two_by_two_has_three_alignments():
    a, b = paths(0, 1, 6)
    assert np.isclose(tr.soft_dtw(a, b, 0.7), np.square(a - b).sum())
    a, b = paths(1, 2, 2)
    c = cdist(a, b, "sqeuclidean")
    ends = c[0, 0] + c[1, 1]
    closed = -np.log(np.exp(-ends) * (1 + np.exp(-c[0, 1]) + np.exp(-c[1, 0])))
    assert np.isclose(tr.soft_dtw(a, b), closed)


def dearest(cost: np.ndarray, gap: float, opening: float) -> float:
    "Gap alignment by recursion over all ways, straight from the definition."

    def best(i: int, j: int, state: int) -> float:
        if i == j == 0:
            return 0.0 if state == 0 else np.inf
        if state == 0:
            if not (i and j):
                return np.inf
            before = [best(i - 1, j - 1, s) for s in range(3)] + [best(i - 1, j, 0), best(i, j - 1, 0)]
            return cost[i - 1, j - 1] + min(before)
        if (i if state == 1 else j) == 0:
            return np.inf
        i, j = (i - 1, j) if state == 1 else (i, j - 1)
        return gap + min(best(i, j, s) + (0 if s == state else opening) for s in range(3))

    return min(best(*cost.shape, s) for s in range(3))


@pytest.mark.parametrize(
    "seed,gap,opening", [(s, *p) for s, p in product(range(3), [(0.5, 0), (1, 0.7), (3, 0.1)])]
)
def test_gap_alignment_is_the_best_of_all_and_its_parts_add_up(seed, gap, opening):
    a, b = paths(seed, 4, 3)
    cost = cdist(a, b)
    found = tr.align_with_gaps(cost, gap, opening)
    assert np.isclose(found.cost, dearest(cost, gap, opening))
    runs = sum(1 + (np.diff(g) > 1).sum() if len(g) else 0 for g in (found.gaps_a, found.gaps_b))
    parts = cost[tuple(found.pairs.T)].sum() + gap * (len(found.gaps_a) + len(found.gaps_b)) + opening * runs
    assert np.isclose(found.cost, parts)
    for side, gaps, n in ((0, found.gaps_a, 4), (1, found.gaps_b, 3)):
        assert sorted({*found.pairs[:, side], *gaps}) == list(range(n))
        assert not set(found.pairs[:, side]) & set(gaps)
    assert (np.diff(found.pairs, axis=0) >= 0).all()


@pytest.mark.parametrize("first,last", [(3, 8), (0, 4), (12, 16)])
def test_a_stage_that_one_path_lacks_is_found(first, last):
    whole = np.linspace(0, 8, 16)[:, None] * [1.0, 0.5]
    part = np.delete(whole, range(first, last), axis=0) + 0.02
    found = tr.align_with_gaps(cdist(whole, part), gap=0.25, opening=0.1)
    assert found.gaps_a.tolist() == list(range(first, last)) and len(found.gaps_b) == 0
    assert len(found.pairs) == len(part)


# -------------------------------------------------------------------------------------------------------- populations


def test_population_distances_equal_the_metrics():
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(n, 4)) + n / 20 for n in (12, 20)]
    for name in tr.DISTANCES:
        reference = [[getattr(metrics, name)(a, b) for b in x] for a in x]
        np.testing.assert_allclose(tr.population_distances(x, x, name), reference, atol=1e-9)


def test_permutation_p_value_equals_relabelling_by_hand():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 2)), rng.normal(size=(15, 2)) + 0.4
    cells, real = np.concatenate([x, y]), metrics.energy_distance(x, y)
    shuffled = [cells[rng.permutation(27)] for _ in range(2000)]
    byhand = np.mean([metrics.energy_distance(s[:12], s[12:]) >= real for s in shuffled])
    assert abs(tr.permutation_p_value(x, y, 4000) - byhand) < 0.04


def test_transport_interpolation_of_gaussians_is_the_gaussian_between():
    "McCann: between N(0, 1) and N(4, 3²) in one dimension, half way is N(2, 2²)."
    rng = np.random.default_rng(0)
    pairing = tr.transport_pairs(rng.normal(size=(700, 1)), 4 + 3 * rng.normal(size=(500, 1)))
    half = pairing.at(0.5)[:, 0]
    mean = pairing.weights @ half
    assert np.isclose(pairing.weights.sum(), 1) and len(half) <= 1199
    assert abs(mean - 2) < 0.15 and abs(np.sqrt(pairing.weights @ (half - mean) ** 2) - 2) < 0.15


def moving(seed: int = 0, cells: int = 80) -> tuple[np.ndarray, dict[float, np.ndarray]]:
    "A simulation along a bend, 11 steps, and real populations at times 0, 1, 2, 3, the bend at even speed."
    rng = np.random.default_rng(seed)
    at = lambda t: np.stack([t, np.sin(t)], axis=-1) * 3
    steps = at(np.linspace(0, 3, 11))[:, None] + 0.3 * rng.normal(size=(cells, 2))
    return steps, {t: at(np.array(t)) + 0.3 * rng.normal(size=(cells, 2)) for t in (0.0, 1.0, 2.0, 3.0)}


def test_the_true_path_beats_every_null_and_reaches_the_ceiling():
    steps, real = moving()
    held = {1.0: real.pop(1.0)}
    table = tr.score_trajectory(steps, real, held, n_permutations=199)
    assert len(table) == 4 and set(table["score"]) == {"path", "timed"}
    for null in ("no_change", "nearest_time", "transport"):
        assert (table["value"] < table[null]).all()
    timed = table.query("score == 'timed' and metric == 'energy_distance'").squeeze()
    assert timed["value"] < 3 * timed["ceiling"] and timed["p_value"] > 0.01 and timed["at"] == 1


def test_the_nulls_scored_as_a_simulation_score_as_the_nulls():
    steps, real = moving()
    held = {1.0: real.pop(1.0)}
    pairing = tr.transport_pairs(real[0.0], real[2.0])
    assert len(pairing.weights) == 80  # equal numbers: a matching
    walk = np.stack([pairing.at(f) for f in np.linspace(0, 1, 11)])
    table = tr.score_trajectory(walk, real, held, clock=tr.linear_clock(11, 0, 2), n_permutations=9)
    np.testing.assert_allclose(table["value"], table["transport"], rtol=1e-9)
    np.testing.assert_allclose(table["at"], table["transport_at"])
    still = tr.score_trajectory(np.repeat(steps[:1], 4, axis=0), real, held, n_permutations=9)
    np.testing.assert_allclose(still["value"], still["no_change"], rtol=1e-9)


def test_a_time_outside_the_range_is_scored_and_said():
    steps, real = moving()
    table = tr.score_trajectory(steps, real | {}, {4.0: real[3.0] + 1}, n_permutations=9)
    assert table["extrapolated"].all() and (table[table["score"] == "timed"]["at"] == 3).all()
    assert np.isfinite(table.select_dtypes(float)).all().all()


SPOILT = {
    "one time is left": lambda s, m, h: (s, {0.0: m[0.0]}, h, None),
    "both measured and held out": lambda s, m, h: (s, m | h, h, None),
    "no held-out time": lambda s, m, h: (s, m, {}, None),
    "two steps": lambda s, m, h: (s[0], m, h, None),
    "diverged": lambda s, m, h: (s * np.nan, m, h, None),
    "× 2 dimensions": lambda s, m, h: (s, m | {2.0: np.zeros((9, 5))}, h, None),
    "not finite; remove": lambda s, m, h: (s, m, {1.0: h[1.0] * np.inf}, None),
    "clock must rise": lambda s, m, h: (s, m, h, np.zeros(11)),
    "for each of the 11 steps": lambda s, m, h: (s, m, h, np.arange(4)),
}


@pytest.mark.parametrize("message", SPOILT)
def test_what_cannot_be_scored_is_refused(message):
    steps, real = moving(cells=10)
    held = {1.0: real.pop(1.0)}
    simulated, measured, held, clock = SPOILT[message](steps, real, held)
    with pytest.raises(DataError, match=message.replace("one time", "measured time")):
        tr.score_trajectory(simulated, measured, held, clock=clock, n_permutations=9)


def test_unknown_distance_and_gamma_are_refused():
    with pytest.raises(DataError, match="choose one of"):
        tr.population_distances([np.zeros((3, 1))], [np.zeros((3, 1))], "euclid")
    with pytest.raises(DataError, match="positive"):
        tr.soft_dtw(np.zeros((2, 1)), np.zeros((2, 1)), 0)


def test_nulls_of_real_myoblasts_lie_between_ceiling_and_no_change(real_data):
    "24 h held out of 0, 24, 48, 72 h: transport beats standing still, half against half beats transport."
    cells = ad.read_h5ad(real_data("hsmm_myoblast_timecourse.h5ad"))
    hours = cells.obs["hours"].astype(float).to_numpy()
    x = np.log1p(cells.X.toarray() if hasattr(cells.X, "toarray") else cells.X)
    x = np.asarray(x[:, np.argsort(-x[hours != 24].var(axis=0))[:500]], np.float32)
    z = fit_pca(x[hours != 24], 10).encode(x)
    measured = {t: z[hours == t] for t in (0.0, 48.0, 72.0)}
    start = np.repeat(measured[0.0][None], 5, axis=0)
    row = tr.score_trajectory(start, measured, {24.0: z[hours == 24]}, n_permutations=199)
    for score in row.query("metric == 'energy_distance'").to_dict("records"):
        assert score["ceiling"] < score["transport"] < score["no_change"] == score["value"]
        assert score["p_value"] < 0.05


# ---------------------------------------------------------------------------------------------------- genes and peaks

GTF = """#!genome-build made
chr1\tx\tgene\t1001\t5000\t.\t+\t.\tgene_id "ENSG1"; gene_name "A"; gene_type "p";
chr1\tx\ttranscript\t1001\t5000\t.\t+\t.\tgene_id "ENSG1"; transcript_id "T"; gene_name "A";
chr1\tx\tgene\t200000\t300000\t.\t-\t.\tgene_id "ENSG2"; gene_name "B";
chrX\tx\tgene\t10\t20\t.\t-\t.\tgene_id "ENSG3";
"""


@pytest.mark.parametrize("packed", [False, True])
def test_gtf_gives_gene_rows_only(tmp_path, packed):
    path = tmp_path / ("made.gtf.gz" if packed else "made.gtf")
    path.write_bytes(gzip.compress(GTF.encode()) if packed else GTF.encode())
    found = view.gene_positions(path)
    assert found["gene"].tolist() == ["A", "B", "ENSG3"] and found["chrom"].tolist() == ["1", "1", "X"]
    assert found["tss"].tolist() == [1001, 300000, 20]
    peaks = view.parse_peaks(["chr1-900-1100", "1:299000-299500"])
    assert view.peaks_near(["ENSG1"], found, peaks)["peak"].tolist() == ["chr1-900-1100"]


def test_table_and_file_give_the_same_positions(tmp_path):
    table = pd.DataFrame({"gene": ["A"], "chrom": ["chr1"], "start": [5], "end": [9], "strand": ["-"]})
    table.to_csv(tmp_path / "genes.csv", index=False)
    table.to_csv(tmp_path / "genes.tsv.gz", index=False, sep="\t")
    for source in (tmp_path / "genes.csv", tmp_path / "genes.tsv.gz"):
        pd.testing.assert_frame_equal(view.gene_positions(source), view.gene_positions(table))
    assert table["chrom"].tolist() == ["chr1"]  # the user's table is left as it was


def test_nearby_peaks_equal_a_search_over_all():
    rng = np.random.default_rng(0)
    begin, chrom = rng.integers(0, 3_000_000, 400), rng.integers(1, 3, 400)
    peaks = view.parse_peaks(
        [f"chr{c}-{b}-{b + n}" for c, b, n in zip(chrom, begin, rng.integers(1, 30_000, 400), strict=True)]
    )
    sites = pd.DataFrame(
        {"gene": [f"g{i}" for i in range(30)], "chrom": rng.integers(1, 3, 30), "strand": "+"}
    )
    sites["start"] = rng.integers(0, 3_000_000, 30)
    sites["end"] = sites["start"] + 100
    found = view.peaks_near(sites["gene"], view.gene_positions(sites), peaks, 50_000)
    slow = {
        (g.gene, p.peak)
        for g in sites.itertuples()
        for p in peaks.itertuples()
        if str(g.chrom) == p.chrom and p.start <= g.start + 50_000 and p.end >= g.start - 50_000
    }
    assert set(zip(found["gene"], found["peak"], strict=True)) == slow and len(slow) > 100


def test_bad_positions_and_peaks_are_refused(tmp_path):
    good = pd.DataFrame({"gene": ["A"], "chrom": ["1"], "start": [5], "end": [9], "strand": ["+"]})
    (tmp_path / "empty.gtf").write_text("# nothing\n")
    (tmp_path / "broken.gtf.gz").write_bytes(b"no gzip")
    places = view.parse_peaks(["chr2-1-9"])
    for message, call in {
        "lack column 'strand'": lambda: view.gene_positions(good.drop(columns="strand")),
        "write '\\+' or '-'": lambda: view.gene_positions(good.assign(strand="1")),
        "no numbers": lambda: view.gene_positions(good.assign(start="here")),
        "no gene rows": lambda: view.gene_positions(tmp_path / "empty.gtf"),
        "cannot read .*broken": lambda: view.gene_positions(tmp_path / "broken.gtf.gz"),
        "cannot read .*missing": lambda: view.gene_positions(tmp_path / "missing.csv"),
        "no peak name": lambda: view.parse_peaks(["A", "B"]),
        "has a position": lambda: view.peaks_near(["Z"], view.gene_positions(good), places),
        "share no chromosome": lambda: view.peaks_near(["A"], view.gene_positions(good), places),
        "one genome build": lambda: view.gene_peak_changes(
            pd.Series({"A": 1.0}), pd.Series({"chr1-900000-900009": 1.0}), view.gene_positions(good)
        ),
    }.items():
        with pytest.raises(DataError, match=message):
            call()


def test_chromatin_near_fkbp5_opens_with_its_rna_in_real_cells(real_data):
    "Dexamethasone, 0 to 3 h: the glucocorticoid targets FKBP5 and TSC22D3 rise; positions of GRCh37, as the peaks."
    import mudata

    cells = mudata.read_h5mu(real_data("a549_dex_scicar_multiome.h5mu"))
    late, early = (cells.obs["time_h"].astype(float).to_numpy() == t for t in (3, 0))
    change = {
        name: pd.Series(
            np.asarray(part.X[late].mean(axis=0) - part.X[early].mean(axis=0)).ravel(), part.var_names
        )
        for name, part in cells.mod.items()
    }
    sites = pd.DataFrame(
        [["FKBP5", "chr6", 35541362, 35696397, "-"], ["TSC22D3", "chrX", 106956452, 107019017, "-"]],
        columns=["gene", "chrom", "start", "end", "strand"],
    )
    found = view.gene_peak_changes(change["rna"], change["atac"], view.gene_positions(sites)).set_index(
        "gene"
    )
    assert found.loc["FKBP5", "rna"] > 1 > found.loc["TSC22D3", "rna"] > 0
    assert (found["peaks"] > 5).all() and (found["nearest_distance"] < 2000).all()
    assert found.loc["FKBP5", "atac"] > 0 and found.loc["FKBP5", "agrees"]
