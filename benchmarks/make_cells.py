"""Counts of any number of cells for benchmarks: TYPES × CONDITIONS, written piece by piece, never all in memory.

python benchmarks/make_cells.py cells.h5ad --cells 1000000 --genes 5000

Each type has two states, between which its cells lie. A perturbation changes a share of the genes, mostly alike in all types.
A cell's molecules are drawn from its own mixture, so that about 800 of 5000 genes are above zero. The seed fixes every byte.
"""

import argparse
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem
from tqdm.auto import tqdm

TYPES, CONDITIONS = 10, ("control", "IFNB", "IFNG", "TNF", "IL6")
STEPS = 1 << 16  # of a cumulative distribution, so that one random number of 16 bits draws one molecule
DEPTH = 1300  # molecules of a cell, in the middle


def molecules(rate: np.ndarray) -> np.ndarray:
    "For each of STEPS random numbers the gene that it draws (genes,) → (STEPS,)."
    share = np.cumsum(rate) / rate.sum()
    return np.searchsorted(share, (np.arange(STEPS) + 0.5) / STEPS).astype(np.uint16)


def tables(genes: int, rng: np.random.Generator) -> np.ndarray:
    "(type, condition, state) flattened × STEPS: which gene a random number draws."
    common = rng.gamma(0.6, 1.0, genes) * rng.lognormal(0, 0.8, genes)
    found = []
    shared = {c: np.exp(rng.normal(0, 0.9, genes) * (rng.random(genes) < 0.1)) for c in CONDITIONS[1:]}
    for _ in range(TYPES):
        own = common * np.exp(rng.normal(0, 1.0, genes) * (rng.random(genes) < 0.3))
        state = np.exp(rng.normal(0, 0.8, genes) * (rng.random(genes) < 0.2))
        for condition in CONDITIONS:
            change = shared.get(condition, 1) ** rng.uniform(0.5, 1.2)
            found += [molecules(own * change), molecules(own * change * state)]
    return np.stack(found)


def draw(kind: np.ndarray, drawn_by: np.ndarray, genes: int, rng: np.random.Generator) -> np.ndarray:
    "Counts of cells of a kind (type and condition each), cells × genes."
    depth = rng.lognormal(np.log(DEPTH), 0.35, len(kind)).astype(int)
    row = np.repeat(np.arange(len(kind)), depth)
    second = rng.random(len(row), dtype=np.float32) < np.repeat(
        rng.random(len(kind), dtype=np.float32), depth
    )
    gene = drawn_by[2 * kind[row] + second, rng.integers(STEPS, size=len(row), dtype=np.uint16)]
    return np.bincount(row * genes + gene, minlength=len(kind) * genes).reshape(len(kind), genes)


def labels(cells: int, seed: int) -> tuple[np.ndarray, pd.DataFrame]:
    "The kind of every cell, and obs."
    kind = np.random.default_rng([seed, 1]).permutation(cells) % (TYPES * len(CONDITIONS))
    names = pd.Index(np.char.add("cell", np.arange(cells).astype(str)).astype(object))
    of = lambda codes, values: pd.Categorical.from_codes(codes, values)
    columns = {
        "perturbation": of(kind % len(CONDITIONS), list(CONDITIONS)),
        "cell_type": of(kind // len(CONDITIONS), [f"type{i}" for i in range(TYPES)]),
    }
    return kind, pd.DataFrame(columns, index=names)


def write(path: Path, cells: int, genes: int, seed: int, piece: int = 2000) -> None:
    "Write the cells into an .h5ad file."
    rng = np.random.default_rng(seed)
    drawn_by, (kind, obs) = tables(genes, rng), labels(cells, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file, tqdm(total=cells, unit="cell", unit_scale=True) as bar:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        write_elem(file, "obs", obs)
        write_elem(file, "var", pd.DataFrame(index=[f"gene{i}" for i in range(genes)]))
        X = file.create_group("X")
        X.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [cells, genes]})
        parts = {
            name: X.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(1 << 18,))
            for name, dtype in (("data", "float32"), ("indices", "int32"))
        }
        ends = [np.zeros(1, np.int64)]
        for start in range(0, cells, piece):
            counts = draw(kind[start : start + piece], drawn_by, genes, rng)
            row, gene = np.nonzero(counts)
            for name, values in (("data", counts[row, gene]), ("indices", gene)):
                parts[name].resize((len(parts[name]) + len(values),))
                parts[name][-len(values) :] = values
            ends.append(ends[-1][-1] + np.cumsum(np.bincount(row, minlength=len(counts))))
            bar.update(len(counts))
        X.create_dataset("indptr", data=np.concatenate(ends))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--cells", type=int, default=25_000)
    parser.add_argument("--genes", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write(options.path, options.cells, options.genes, options.seed)
