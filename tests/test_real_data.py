"""The real sets run to a report; skipped, saying so, where they are absent."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from conftest import GROUPS

QUICK = ["--steps", "12000"]
COLUMNS = "modality group perturbation method metric genes seed value null ceiling ci_low ci_high".split()


@pytest.mark.parametrize(
    "name, options",
    [
        ("papalexi21_ifngr2_ko.h5ad", ["--perturbation-key", "perturbation", "--control", "control"]),
        ("a549_dex_scicar_multiome.h5mu", ["--perturbation-key", "perturbation", "--control", "control", "--time-key", "time_h"]),
        ("hsmm_myoblast_timecourse.h5ad", ["--perturbation-key", "hours", "--control", "0", "--time-key", "hours"]),
        ("norman19_crispra_500hvg.h5ad", ["--perturbation-key", "perturbation", "--control", "control", "--hold-out-perturbation", "KLF1+MAP2K6"]),
    ],
)  # fmt: skip
def test_runs_to_a_report(real_data, waddington, tmp_path, name, options):
    out = tmp_path / "out"
    code, said = waddington("run", real_data(name), *options, *QUICK, "--out", out)
    assert code == 0, said
    table = pd.read_csv(out / "metrics.csv")
    assert (
        list(table) == COLUMNS
        and table[["value", "null", "ceiling", "ci_low", "ci_high"]].notna().all().all()
    )
    predicted = ad.read_h5ad(out / "predicted.h5ad")
    assert (
        predicted.X.shape == predicted.layers["control"].shape
        and np.isfinite(predicted.X).all()
        and predicted.X.min() >= 0
    )
    assert set(predicted.obs["perturbation"]) == set(table["perturbation"].astype(str))
    assert not (out / "checkpoint.safetensors").exists()


def test_kang_held_out_cell_type(real_data, waddington, tmp_path):
    "Better than both nulls in a cell type that was never seen perturbed, and the right genes go up."
    out = tmp_path / "out"
    options = [*GROUPS, "--hold-out", "CD4 Naive T"]
    code, said = waddington("run", real_data("kang18_ifnb_counts.h5ad"), *options, "--out", out)
    assert code == 0, said
    table = (
        pd.read_csv(out / "metrics.csv").query("method == 'policy' and genes == 'top100'").set_index("metric")
    )
    delta, energy = table.loc["pearson_delta"], table.loc["energy_distance"]
    assert delta["value"] > delta["null"] and energy["value"] < energy["null"]
    cells = ad.read_h5ad(out / "predicted.h5ad")
    change = pd.Series(np.asarray(cells.X - cells.layers["control"]).mean(axis=0), cells.var_names)
    assert (change[["ISG15", "IFIT1", "IFI6"]] > 0.5).all()
    start = ad.read_h5ad(real_data("kang18_ifnb_counts.h5ad"))
    start = start[cells.obs["source_cell"]]
    counts = np.asarray(start.X.todense(), dtype=float)
    log = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    genes = start.var_names.get_indexer(cells.var_names)
    assert np.allclose(cells.layers["control"], log[:, genes], atol=1e-4)
