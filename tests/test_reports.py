"""Any predictions by name, scored and told in a page: what comes in, what is said, and tables that work without a connection."""

import html
import re
import shutil
import subprocess

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from scipy import sparse

import waddington_nb as wd
from waddington_nb import reports
from waddington_nb.baselines import BASELINES
from waddington_nb.reports import html_page, html_questions, html_table

QUICK = {"baselines": {}, "n_bootstrap": 0}


@pytest.fixture
def task(cells) -> wd.Task:
    return wd.Task(cells, group_key="cell_type", hold_out_group="NK")


def moved(task: wd.Task, size: float) -> ad.AnnData:
    "The mean shift, every gene `size` too high."
    guess = wd.mean_shift(task)
    guess.X = guess.X + np.float32(size)
    return guess


# ---------------------------------------------------------------------------------------------------------- what comes in


def test_a_baseline_runs_once_and_is_listed_at_every_seed(task):
    calls = []

    def counted(task: wd.Task) -> ad.AnnData:
        calls.append(1)
        return wd.no_change(task)

    guesses = {seed: moved(task, seed / 10) for seed in (1, 2, 3)}
    table = wd.evaluate(task, {"mine": guesses}, baselines={"counted": counted}, n_bootstrap=20).table
    assert len(calls) == 1 and set(table["method"]) == {"mine", "counted", "no_change", "mean_shift"}
    seeds = table.groupby("method")["seed"].unique().map(list)
    assert (seeds.map(len) == 3).all() and not table.drop(columns=["seed"]).isna().any().any()
    same = table[table["method"] == "counted"].groupby(["metric", "genes"])[["value", "ci_low", "ci_high"]]
    assert (same.nunique() == 1).all().all()
    mine = table.query("method == 'mine' and metric == 'rmse' and genes == 'all'").set_index("seed")["value"]
    assert mine[1] < mine[2] < mine[3]


def test_one_prediction_is_the_policy_and_scores_as_by_name(task):
    guess = moved(task, 0.1)
    one, named = (wd.evaluate(task, given, **QUICK) for given in (guess, {"policy": {0: guess}}))
    assert one.table.equals(named.table) and one.name == "policy"


def test_predictions_of_other_people_are_matched_by_name(task):
    guess = moved(task, 0.1)
    other = ad.AnnData(np.hstack([guess.X, np.ones((guess.n_obs, 1), np.float32)]), obs=guess.obs.copy())
    other.var_names = [*guess.var_names, "one gene more"]
    rng = np.random.default_rng(0)
    other = other[rng.permutation(other.n_obs)][:, rng.permutation(other.n_vars)].copy()
    other.X = sparse.csc_matrix(other.X)
    other.obs = other.obs.astype("category")
    assert wd.evaluate(task, other, **QUICK).table.equals(wd.evaluate(task, guess, **QUICK).table)


def test_a_combination_may_be_spelled_either_way():
    rng = np.random.default_rng(0)
    label = np.repeat(["control", "A", "B", "B+A"], 30)
    x = rng.poisson(
        2 + 2 * np.array([[("A" in p) * (g < 5) + ("B" in p) * (g > 25) for g in range(30)] for p in label])
    )
    cells = ad.AnnData(
        x.astype(np.float32), obs=pd.DataFrame({"perturbation": label}, index=[f"c{i}" for i in range(120)])
    )
    task = wd.Task(cells, hold_out_perturbation="A+B")
    guess = wd.mean_shift(task)
    tables = []
    for name in ("A+B", "B+A"):
        guess.obs["perturbation"] = name
        tables.append(wd.evaluate(task, guess.copy(), **QUICK).table)
    assert tables[0].equals(tables[1]) and set(tables[0]["perturbation"]) == {"A+B"}


def test_groups_may_be_numbers(cells):
    cells.obs["cluster"] = cells.obs["cell_type"].map({"B": 0, "NK": 1, "T": 2})
    task = wd.Task(cells, group_key="cluster", hold_out_group=1)
    guess = wd.mean_shift(task)
    guess.obs["cluster"] = 1
    assert set(wd.evaluate(task, guess, **QUICK).table["group"]) == {"1"}


def test_without_truth_there_is_one_line(cells):
    everything = wd.Task(cells, group_key="cell_type")
    with pytest.raises(
        wd.DataError, match=r"no truth to score against.*model\.predict\(task\).*waddington predict"
    ):
        wd.evaluate(everything, cells)


@pytest.mark.parametrize(
    "said, spoil",
    [
        ("is list, no AnnData", lambda guess: [guess]),
        ("has no X", lambda guess: ad.AnnData(obs=guess.obs, var=guess.var)),
        ("lacks 'gene", lambda guess: guess[:, :5].copy()),
        (
            "lacks obs 'source_cell'",
            lambda guess: ad.AnnData(guess.X, obs=guess.obs.drop(columns="source_cell"), var=guess.var),
        ),
        ("39 cells for 'IFNB' in 'NK', not 40", lambda guess: guess[1:].copy()),
    ],
)
def test_what_cannot_be_scored_is_named(task, said, spoil):
    with pytest.raises(wd.DataError, match="prediction 'theirs'") as caught:
        wd.evaluate(task, {"ours": wd.mean_shift(task), "theirs": spoil(wd.mean_shift(task))}, **QUICK)
    assert said in str(caught.value) and "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------------- what is said


def test_the_verdict_is_about_the_first_named(task):
    good, bad = moved(task, 0.0), moved(task, 3.0)
    first, second = (
        wd.evaluate(task, named, **QUICK) for named in ({"a": good, "b": bad}, {"b": bad, "a": good})
    )
    assert first.verdict().startswith("a beats the better null on") and second.name == "b"
    assert second.verdict().startswith("b beats the better null on 0 of") and "closes" not in second.verdict()
    assert (
        first.summary().query("method == 'b'")["value"].tolist()
        == second.summary().query("method == 'b'")["value"].tolist()
    )


def test_the_figure_is_axes_with_every_method(task):
    ax = wd.evaluate(task, {"mine": moved(task, 0.0)}, baselines=BASELINES, n_bootstrap=0).plot(show=False)
    assert isinstance(ax, Axes)
    assert {"mine", "no change", "control + mean shift"} <= set(ax.get_legend_handles_labels()[1])


def test_beyond_the_ceiling_is_not_counted_in_per_cent():
    rows = pd.DataFrame(
        {"metric": "pearson_delta", "genes": "all", "null": [0.5], "ceiling": [0.501], "value": [0.6]}
    )
    assert reports._share(reports.gap_closed(rows)[0]) == "all of it"
    said = reports._verdict(rows.assign(main="pearson_delta"), "a")
    assert "and reaches the ceiling (median)" in said and "%" not in said


def test_the_page_stands_alone_and_opens_with_the_verdict(task, tmp_path):
    report = wd.evaluate(task, {"<mine>": moved(task, 0.0)}, **QUICK)
    page = report.to_html(tmp_path / "report.html", settings={"seed": 0, "data": "a&b.h5ad"}).read_text()
    assert "<mine>" not in page and "&lt;mine&gt;" in page and "a&amp;b.h5ad" in page
    assert html.escape(report.verdict()) in page.split("<h2>")[0]
    assert "width=device-width" in page and not re.search(r"(src|href)='?\"?(http|//)", page)
    assert page.count("data-save='genes.csv'") == 1 and page.count("<script>") == 1
    assert (
        len(re.findall(r"<tr>", page.split("data-save='genes.csv'")[1].split("</table>")[0]))
        == len(task.genes) + 1
    )


def test_a_score_that_cannot_tell_says_so():
    row = {"question": "how far?", "genes": "all", "null": 2.0}
    rows = pd.DataFrame([
        row | {"metric": "rmse", "value": 1.5, "ceiling": 1.0}, row | {"metric": "rmse", "value": 2.5, "ceiling": 1.0},
        row | {"metric": "rmse", "value": 1.5, "ceiling": 2.0},
    ])  # fmt: skip
    page = html_questions(rows, "mine")
    assert [page.count(f">{share}<") for share in ("50%", "worse than null", "cannot tell")] == [1, 1, 1]


# ------------------------------------------------------------------------------------------------------------ gene tables

IN_BROWSER = """<script>addEventListener('load', () => {
const table = document.querySelector('table'), find = document.querySelector('input'), out = [table.csv()];
const [gene, change] = table.tHead.rows[0].cells;
change.click(); out.push(table.csv()); change.click(); out.push(table.csv()); gene.click(); out.push(table.csv());
find.value = 'ALPHA 1'; find.oninput(); out.push(table.csv());
document.body.append(Object.assign(document.createElement('pre'), {textContent: out.join('#')})); });</script>"""


def in_browser(page: str, tmp_path) -> list[str]:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed to run the page in")
    (tmp_path / "page.html").write_text(page.replace("</body>", f"{IN_BROWSER}</body>"))
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=2000",
        "--dump-dom",
    ]
    done = subprocess.run(
        [*command, f"file://{tmp_path}/page.html"], capture_output=True, text=True, timeout=300
    )
    return html.unescape(re.search(r"<pre>(.*?)</pre>", done.stdout, re.S)[1]).split("#")


def test_tables_are_searched_sorted_and_saved_in_the_browser(tmp_path):
    genes = ["=HYPERLINK(1)", "+A", "-B", "@C", 'x,"y', "alpha 1", "g10", "g9"]
    change = [-1.23456789, 2, np.nan, 0.5, 3, 1e-9, 10, 9]
    table = html_table(pd.DataFrame({"gene": genes, "change": change}), save_as="genes.csv")
    plain, up, down, by_gene, found = in_browser(html_page("t", "lead", {"Genes": [table]}), tmp_path)
    assert plain.splitlines() == [
        "gene,change", "'=HYPERLINK(1),-1.23457", "'+A,2", "'-B,", "'@C,0.5", '"x,""y",3', "alpha 1,1e-09", "g10,10", "g9,9"
    ]  # fmt: skip
    value = lambda lines: [line.rpartition(",")[2] for line in lines.splitlines()[1:]]
    assert value(up) == ["-1.23457", "1e-09", "0.5", "2", "3", "9", "10", ""]
    assert value(down) == ["10", "9", "3", "2", "0.5", "1e-09", "-1.23457", ""]  # what is missing comes last
    names = [line.split(",")[0] for line in by_gene.splitlines()]
    assert names.index("g9") < names.index("g10") and found.splitlines() == ["gene,change", "alpha 1,1e-09"]


def test_a_page_without_such_tables_needs_no_script():
    assert "<script>" not in html_page("t", "lead", {"Table": [html_table(pd.DataFrame({"a": [1]}))]})
