"""Spoiled files: every one is read or refused in one line, and none ends the interpreter.

    python tests/fuzz.py 2000 [--seed 0] [--keep folder]

makes so many files from three whole ones (h5ad sparse, h5ad dense, h5mu), by bytes and by structure, and reads them in a
child process, a new one after each death. Prints what happened and ends with 1 if anything but `DataError` or success came out. `pytest` runs a
short form (test_fuzz.py)."""

import argparse
import json
import os
import select
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

SECONDS = 180  # a file that takes longer hangs


def whole_files(folder: Path) -> list[Path]:
    "A sparse and a dense AnnData with all that files have, and a MuData in muon's layout."
    rng, n = np.random.default_rng(0), 60
    obs = pd.DataFrame(
        {
            "perturbation": pd.Categorical(["control", "A", "B"] * (n // 3)),
            "hours": np.repeat([0, 1, 3], n // 3),
        },
        index=[f"cell{i}" for i in range(n)],
    )
    var = pd.DataFrame({"symbol": [f"S{i}" for i in range(30)]}, index=[f"gene{i}" for i in range(30)])
    X = sparse.csr_matrix(rng.poisson(1.0, (n, 30)).astype("float32"))
    full = ad.AnnData(X, obs=obs, var=var, uns={"log1p": {"base": 2}, "text": "x"})
    full.layers["counts"], full.raw = sparse.csc_matrix(X), full
    full.obsm["pca"], full.obsp["near"] = rng.random((n, 2)), sparse.csr_matrix(np.eye(n))
    full.write_h5ad(folder / "sparse.h5ad", compression="gzip")
    ad.AnnData(X.toarray(), obs=obs, var=var).write_h5ad(folder / "dense.h5ad")
    with h5py.File(folder / "two.h5mu", "w") as file:
        from anndata.io import write_elem

        write_elem(file, "obs", obs)
        for name, start in [("rna", 0), ("atac", 1000)]:
            part = ad.AnnData(X, obs=obs.copy(), var=pd.DataFrame(index=[f"f{start + i}" for i in range(30)]))
            write_elem(file, f"mod/{name}", part)
        file["mod"].attrs["mod-order"] = ["rna", "atac"]
    return [folder / "sparse.h5ad", folder / "dense.h5ad", folder / "two.h5mu"]


# ------------------------------------------------------------------------------------------------------------ bytes


def spoil_bytes(content: bytearray, rng: np.random.Generator) -> bytearray:
    "Flip, zero, cut, repeat or drop bytes; half of the time near the head, where the structure is."
    near = int(rng.choice([len(content), min(4096, len(content))]))
    at = int(rng.integers(near))
    length = int(rng.integers(1, 64))
    how = rng.choice(["flip", "bits", "zero", "cut", "drop", "repeat", "noise"])
    if how == "flip":
        for i in rng.integers(near, size=int(rng.integers(1, 30))):
            content[i] ^= int(rng.integers(1, 256))
    elif how == "bits":
        for i in rng.integers(near, size=int(rng.integers(1, 4))):
            content[i] ^= 1 << int(rng.integers(8))
    elif how == "zero":
        content[at : at + length] = bytes(len(content[at : at + length]))
    elif how == "noise":
        content[at : at + length] = rng.bytes(len(content[at : at + length]))
    elif how == "cut":
        del content[at:]
    elif how == "drop":
        del content[at : at + length]
    else:
        content[at:at] = content[at : at + length]
    return content


# -------------------------------------------------------------------------------------------------------- structure


def objects(file: h5py.File) -> tuple[list[str], list[str]]:
    "Names of all groups and of all arrays."
    groups, arrays = ["/"], []
    file.visititems(lambda name, item: (arrays if isinstance(item, h5py.Dataset) else groups).append(name))
    return groups, arrays


def replace(file: h5py.File, name: str, value) -> None:
    "Another array in the place of one, with its attributes."
    attributes = dict(file[name].attrs)
    del file[name]
    file[name] = value
    for key, attribute in attributes.items():
        file[name].attrs[key] = attribute


def spoil_array(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    "Drop, halve, double, retype, reshape an array, or put numbers into it that lead nowhere."
    if file[name].nbytes > 1 << 24:  # made huge before
        return
    old = file[name][()]
    how = rng.choice(
        ["drop", "halve", "double", "retype", "flat", "numbers", "empty", "group", "huge", "text"]
    )
    if how == "drop":
        del file[name]
    elif how == "group":
        del file[name]
        file.create_group(name)
    elif how == "huge":
        attributes = dict(file[name].attrs)
        del file[name]
        file.create_dataset(name, shape=(1 << int(rng.integers(20, 40)),), dtype="f8", chunks=(1 << 16,))
        file[name].attrs.update(attributes)
    elif np.ndim(old) == 0:
        replace(file, name, rng.choice([0, -1, 7]))
    elif how == "halve":
        replace(file, name, old[: len(old) // 2])
    elif how == "double":
        replace(file, name, np.concatenate([old, old]))
    elif how == "empty":
        replace(file, name, old[:0])
    elif how == "flat":
        replace(file, name, old.ravel() if old.ndim > 1 else old[:, None])
    elif how == "text":
        replace(file, name, np.array([b"x"] * len(old)))
    elif old.dtype.kind in "iufb":
        if how == "retype":
            replace(
                file,
                name,
                old.astype(rng.choice(["int8", "float16", "uint64", "bool", "complex64", "int32"])),
            )
        else:
            new = old.copy().ravel()
            with np.errstate(all="ignore"):
                new[rng.integers(len(new) or 1, size=3) if len(new) else []] = np.array(
                    rng.choice([-1, 99, 2**31 - 1, -(2**31), 127])
                ).astype(new.dtype)
            replace(file, name, new.reshape(old.shape))
    else:
        replace(file, name, np.arange(len(old)))


def spoil_attribute(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    "Drop an attribute of an object, or change it."
    keys = list(file[name].attrs)
    if not keys:
        return
    key = str(rng.choice(keys))
    if rng.random() < 0.3:
        del file[name].attrs[key]
    else:
        news = ["csr_matrix", "csc_matrix", "array", "dict", "anndata", "raw", "nonsense", "0.9.9", -1, 1.5]
        news += [[0, 0], [60, 31], [30, 60], [61, 30], [-5, 3], [2**40, 2**40], [1], ["a", "b"], "_index", ""]
        file[name].attrs[key] = news[int(rng.integers(len(news)))]


def spoil_links(file: h5py.File, groups: list[str], rng: np.random.Generator) -> None:
    "A link that leads nowhere, to itself, to its parent or to another part."
    parent = file[str(rng.choice(groups))]
    names = list(parent)
    name = str(rng.choice(names)) if names else "new"
    if name in parent:
        del parent[name]
    how = rng.choice(["nowhere", "self", "parent", "other", "outside"])
    if how == "parent":
        parent[name] = parent  # a hard circle
    elif how == "outside":
        parent[name] = h5py.ExternalLink("nowhere.h5", "/x")
    else:
        target = {"nowhere": "/no/where", "self": f"{parent.name}/{name}", "other": str(rng.choice(groups))}[
            how
        ]
        parent[name] = h5py.SoftLink(target)


def spoil_structure(path: Path, rng: np.random.Generator) -> None:
    "One to three changes of arrays, attributes or links."
    with h5py.File(path, "r+") as file:
        for _ in range(int(rng.integers(1, 4))):
            groups, arrays = objects(file)
            how = rng.random()
            if how < 0.5 and arrays:
                spoil_array(file, str(rng.choice(arrays)), rng)
            elif how < 0.9:
                spoil_attribute(file, str(rng.choice(groups + arrays)), rng)
            else:
                spoil_links(file, groups, rng)


def spoil(source: Path, target: Path, rng: np.random.Generator) -> None:
    "Write a spoiled copy of a whole file."
    target.write_bytes(source.read_bytes())
    if rng.random() < 0.5:
        target.write_bytes(spoil_bytes(bytearray(target.read_bytes()), rng))
    else:
        spoil_structure(target, rng)


# ------------------------------------------------------------------------------------------------------------- reading


def use(path: Path) -> str:
    "Read a file as `run` and `check` do; 'read' or 'refused', or what went wrong."
    from waddington_nb.checks import check
    from waddington_nb.core import DataError
    from waddington_nb.tasks import Task
    from waddington_nb.time_tasks import TimeCourseTask

    outcome = "read"
    for step in (
        lambda: Task(path, min_cells=2),
        lambda: check(path),
        *([lambda: TimeCourseTask(path, "hours", 1, min_cells=2)] if path.suffix == ".h5mu" else []),
    ):
        try:
            step()
        except DataError as error:
            outcome = "refused"
            if "\n" in str(error):
                return f"more than one line: {error}"
        except BaseException:
            return traceback.format_exc()
    return outcome


class Reader:
    "A child process that reads one file after another; when it dies or hangs, another takes its place."

    def __init__(self, step: Callable[[Path], str] = use):
        self.step, self.child = step, None

    def start(self) -> None:
        "Fork; the child answers every path with what `step` says of it."
        (ask_out, ask_in), (say_out, say_in) = os.pipe(), os.pipe()
        self.child = os.fork()
        if self.child == 0:
            os.close(ask_in), os.close(say_out)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            for path in os.fdopen(ask_out):
                os.write(say_in, json.dumps(self.step(Path(path[:-1]))[-4000:]).encode() + b"\n")
            os._exit(0)
        os.close(ask_out), os.close(say_in)
        self.ask, self.said = os.fdopen(ask_in, "w"), os.fdopen(say_out, "rb", buffering=0)

    def __call__(self, path: Path) -> str:
        "What is said of a file; how the child ended, if it said nothing."
        if self.child is None:
            self.start()
        print(path, file=self.ask, flush=True)
        answer, deadline = b"", time.time() + SECONDS
        while not answer.endswith(b"\n"):
            if not select.select([self.said], [], [], max(0, deadline - time.time()))[0]:
                return self.stop() or f"took more than {SECONDS} s"
            if not (piece := self.said.read(8192)):
                return self.stop() or "the process died"
            answer += piece
        return json.loads(answer)

    def stop(self) -> None:
        "End the child."
        if self.child is not None:
            os.kill(self.child, 9)
            os.waitpid(self.child, 0)
            self.ask.close(), self.said.close()
            self.child = None


def fuzz(n: int, seed: int = 0, keep: Path | None = None) -> tuple[Counter, dict[str, str]]:
    "Outcomes of `n` spoiled files, counted, and of each that went wrong what came out."
    count, wrong = Counter(), {}
    import scanpy  # noqa: F401

    import waddington_nb.checks  # noqa: F401
    import waddington_nb.time_tasks  # noqa: F401
    from waddington_nb import measurements

    measurements._SECONDS = 2  # the files are small; what hangs is to end soon

    with tempfile.TemporaryDirectory() as folder:
        sources, read = whole_files(Path(folder)), Reader()
        for source in sources:
            assert (said := read(source)) == "read", said
        for i in range(n):
            rng = np.random.default_rng([seed, i])
            source = sources[int(rng.integers(len(sources)))]
            target = Path(folder) / f"case{i}{source.suffix}"
            spoil(source, target, rng)
            said = read(target)
            count[said if said in ("read", "refused") else "wrong"] += 1
            if said not in ("read", "refused"):
                wrong[target.name] = said
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / target.name).write_bytes(target.read_bytes())
            target.unlink()
        read.stop()
    return count, wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=int, nargs="?", default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for files that went wrong")
    options = parser.parse_args()
    outcomes, failures = fuzz(options.files, options.seed, options.keep)
    for name, said in failures.items():
        print(name, said.strip().splitlines()[-1][:300])
    print(dict(outcomes))
    sys.exit(bool(failures))
