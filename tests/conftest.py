"""What several tests need: a small study on disk, the command line, and the real data sets where they are."""

import os
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from waddington_nb import cli

ROOT = Path(__file__).resolve().parent.parent


def made_up(seed: int = 0, genes: int = 40) -> ad.AnnData:
    "Three cell types of 80 cells; IFNB lifts the first ten genes fourfold, in one type only half of them."
    rng = np.random.default_rng(seed)
    n = 240
    obs = pd.DataFrame(
        {"perturbation": ["control", "IFNB"] * (n // 2), "cell_type": np.repeat(["B", "NK", "T"], n // 3)}
    )
    obs.index = [f"cell{i}" for i in range(n)]
    rate = rng.gamma(2.0, 1.0, size=(3, genes))[np.repeat([0, 1, 2], n // 3)]
    treated = (obs["perturbation"] == "IFNB").to_numpy()
    rate[treated, :10] *= 4
    rate[treated & (obs["cell_type"] == "T").to_numpy(), :5] /= 4
    return ad.AnnData(
        rng.poisson(rate).astype("float32"),
        obs=obs,
        var=pd.DataFrame(index=[f"gene{i}" for i in range(genes)]),
    )


@pytest.fixture
def cells() -> ad.AnnData:
    return made_up()


@pytest.fixture
def cells_file(tmp_path, cells) -> Path:
    path = tmp_path / "cells.h5ad"
    cells.write_h5ad(path)
    return path


ARMS = ["--perturbation-key", "perturbation", "--control", "control"]
GROUPS = [*ARMS, "--group-key", "cell_type"]
QUICK = ["--steps", "8000", "--latent", "8"]


def arguments(path, out, *more) -> list[str]:
    "Arguments of a quick run on a made-up file."
    return ["run", str(path), *GROUPS, "--hold-out", "NK", *QUICK, "--out", str(out), *map(str, more)]


@pytest.fixture
def waddington(capsys):
    "Run the command in this process; returns its exit code and what it said on stderr, without progress bars."

    def call(*arguments) -> tuple[int, str]:
        code = cli.main([str(a) for a in arguments])
        said = [line.split("\r")[-1] for line in capsys.readouterr().err.splitlines()]
        return code, "\n".join(line for line in said if "iteration" not in line)

    return call


@pytest.fixture
def real_data():
    "The path of a real data set by file name; skips, saying so, where it is absent."

    def find(name: str) -> Path:
        for folder in [os.environ.get("WADDINGTON_DATA"), ROOT.parent / "shared" / "data"]:
            if folder and (Path(folder) / name).is_file():
                return Path(folder) / name
        pytest.skip(f"{name} is neither in $WADDINGTON_DATA nor in ../shared/data")

    return find


def write_sets(path, sets: dict[str, list[str]]) -> None:
    "Gene sets as a `.gmt` file."
    Path(path).write_text("".join("\t".join([name, "made", *genes]) + "\n" for name, genes in sets.items()))
