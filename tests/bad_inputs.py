"""Bad input of every kind, made from whole studies: broken files, labels, columns, values, options, models, environments.

    python tests/bad_inputs.py [--keep-going]

runs all cases and prints what did not end in exit code 2 and one line that names the culprit and a remedy, with nothing
half-written. `pytest` runs every eighth (test_bad_inputs.py); all of them with WADDINGTON_ALL=1."""

import gzip
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import h5py
import mudata
import numpy as np
import pandas as pd
from conftest import made_up
from scipy import sparse

from waddington_nb import DataError, cli


@dataclass
class Case:
    "Arguments of the command, or a call; what the message must name (one of several with | between)."

    name: str
    mentions: str
    arguments: list | None = None
    call: Callable | None = None


KEYS = ["--perturbation-key", "perturbation", "--control", "control"]
GROUPED = [*KEYS, "--group-key", "cell_type", "--hold-out", "NK"]
REMEDY = re.compile(
    r";|did you mean|there is|needs|\b(see|use|give|say|choose|name|write|remove|rename|check|convert|leave|fit|free|bin|set|"
    r"call|pass|wrap|shift|copy|add)\b"
)


def study(**change) -> ad.AnnData:
    "A made-up study with columns of time, dose and guides."
    cells = made_up()
    cells.obs["perturbation"] = np.resize(["control", "A", "B", "control", "A+B"], cells.n_obs)
    cells.obs["hours"] = np.resize([0, 6, 24], cells.n_obs)
    for key, values in change.items():
        cells.obs[key] = values
    return cells


def spelled(name: str, rng: np.random.Generator) -> str:
    "A name with one letter lost, doubled, swapped or in another case."
    i = int(rng.integers(1, len(name) - 1))
    return [
        name[:i] + name[i + 1 :],
        name[:i] + name[i] + name[i:],
        name[: i - 1] + name[i] + name[i - 1] + name[i + 1 :],
        name[:i] + name[i].swapcase() + name[i + 1 :],
    ][int(rng.integers(4))]


# ---------------------------------------------------------------------------------------------------------------- files


def broken_bytes(folder: Path, rng: np.random.Generator) -> Iterator[Case]:
    "Files that are no files of cells, or parts of one."
    study().write_h5ad(folder / "whole.h5ad")
    whole = (folder / "whole.h5ad").read_bytes()
    contents = {f"cut{k}.h5ad": whole[: int(len(whole) * k / 12)] for k in range(1, 12)}
    contents |= {f"head{k}.h5ad": bytes(k) + whole[k:] for k in (4, 64, 400)}
    contents |= {f"noise{k}.h5ad": rng.bytes(k) for k in (1, 600, 9000)}
    contents |= {"empty.h5ad": b"", "text.h5ad": b"gene,cell\n1,2\n", "page.h5ad": b"<html>not found</html>"}
    contents |= {f"table.{kind}": b"a,b\n1,2\n" for kind in ("csv", "tsv", "txt", "xlsx", "parquet")}
    contents |= {f"object.{kind}": b"\x80\x04N." for kind in ("rds", "pkl", "RData", "zip", "tar")}
    packed = gzip.compress(whole)
    contents |= {"half.h5ad.gz": packed[: len(packed) // 2], "text.h5ad.gz": gzip.compress(b"no cells")}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        yield Case(f"bytes {name}", name, ["run", folder / name, *KEYS])
    for name in ("nowhere.h5ad", "no/where.h5mu", "whole.h5"):
        yield Case(f"path {name}", name, ["run", folder / name, *KEYS])
    (folder / "bare").mkdir()
    (folder / "run").mkdir()
    (folder / "run" / "report.html").write_text("x")
    (folder / "matrix").mkdir()
    (folder / "matrix" / "matrix.mtx").write_text(
        "%%MatrixMarket matrix coordinate integer general\n1 1 1\n1 1 1\n"
    )
    for name in ("bare", "run", "matrix"):
        yield Case(f"folder {name}", name, ["run", folder / name, *KEYS])


def broken_structure(folder: Path, rng: np.random.Generator) -> Iterator[Case]:
    "HDF5 files whose parts are missing, too short or of another type."
    source = study()
    source.X, source.obs["perturbation"] = (
        sparse.csr_matrix(source.X),
        pd.Categorical(source.obs["perturbation"]),
    )
    source.write_h5ad(folder / "parts.h5ad")
    mudata.MuData({"rna": source}).write_h5mu(folder / "parts.h5mu")

    def put(file, name, value) -> None:
        attributes = dict(file[name].attrs)
        del file[name]
        file[name] = value
        file[name].attrs.update(attributes)

    changes = {
        **{f"no {part}": lambda f, part=part: f.__delitem__(part) for part in ("obs", "var", "X/indptr", "X/indices", "X/data")},
        **{f"no {part}": lambda f, part=part: f.__delitem__(part) for part in ("obs/perturbation/codes", "obs/perturbation/categories")},
        **{f"half {part}": lambda f, part=part: put(f, part, f[part][()][: len(f[part]) // 2]) for part in ("X/indptr", "X/indices", "X/data")},
        "far indices": lambda f: put(f, "X/indices", f["X/indices"][()] + 1000),
        "negative indices": lambda f: put(f, "X/indices", f["X/indices"][()] - 5),
        "pointers back": lambda f: put(f, "X/indptr", f["X/indptr"][()][::-1]),
        "narrow pointers": lambda f: put(f, "X/indptr", f["X/indptr"][()].astype("int8")),
        "wrong shape": lambda f: f["X"].attrs.__setitem__("shape", [7, 9]),
        "odd encoding": lambda f: f["X"].attrs.__setitem__("encoding-type", "nonsense"),
        "short index": lambda f: put(f, "obs/_index", f["obs/_index"][()][:7]),
        "data is text": lambda f: put(f, "X/data", np.array([b"x"] * len(f["X/data"]))),
        "data is complex": lambda f: put(f, "X/data", f["X/data"][()].astype(complex)),
        "codes too far": lambda f: put(f, "obs/perturbation/codes", f["obs/perturbation/codes"][()] + 50),
    }  # fmt: skip
    for i, (name, change) in enumerate(changes.items()):
        for kind in ("h5ad", "h5mu"):
            path = folder / f"part{i}.{kind}"
            shutil.copy(folder / f"parts.{kind}", path)
            with h5py.File(path, "r+") as file:
                change(file if kind == "h5ad" else file["mod/rna"])
            yield Case(
                f"structure {name} {kind}", f"{path.name}|X holds|obs has no columns", ["run", path, *KEYS]
            )


# -------------------------------------------------------------------------------------------------- columns and labels


def wrong_names(folder: Path, rng: np.random.Generator) -> Iterator[Case]:
    "Names that are misspelt, or lie elsewhere."
    path = folder / "names.h5ad"
    study(dose=1.0, guide="g").write_h5ad(path)
    options = {
        "--perturbation-key": "perturbation", "--control": "control", "--group-key": "cell_type", "--hold-out": "NK",
        "--hold-out-perturbation": "A+B", "--perturbation": "A+B", "--time-key": "hours", "--dose-key": "dose",
        "--layer": "counts", "--join-guides": "guide",
    }  # fmt: skip
    for option, right in options.items():
        usual = {"--perturbation-key": "perturbation", "--control": "control"}
        usual |= {"--group-key": "cell_type"} if option in ("--hold-out", "--group-key") else {}
        for wrong in {spelled(right, rng) if len(right) > 3 else "N K", "no such name", right + "x"} - {
            right
        }:
            given = usual | {option: wrong}
            yield Case(
                f"name {option} {wrong}", wrong, ["run", path, *(x for pair in given.items() for x in pair)]
            )
    yield Case("hold-out without group", "--group-key", ["run", path, *KEYS, "--hold-out", "NK"])
    yield Case("group is the key", "perturbation", ["run", path, *KEYS, "--group-key", "perturbation"])
    for pattern in ("NT*", "[0-9]*", "??"):
        yield Case(f"control {pattern}", pattern, ["run", path, *KEYS[:3], pattern])


def wrong_labels(folder: Path, rng: np.random.Generator) -> Iterator[Case]:
    "Columns whose labels cannot be used."
    n = study().n_obs
    turn = lambda *names: np.resize(np.array(names, object), n)
    columns = {
        "all control": ("perturbation", turn("control"), []), "none control": ("control", turn("A", "B"), []),
        "all missing": ("control", turn("nan", "", "NA"), []), "one cell each": ("perturbation", [f"p{i}" for i in range(n - 20)] + ["control"] * 20, []),
        "control doubled": ("did you mean 'control;control'", turn("control;control", "A;control", "B;control"), []),
        "control in another case": ("did you mean 'None'", turn("None", "A", "B"), ["--control", "none"]),
        "case straddles": ("differ in case", turn("control", "A", "a"), ["--hold-out-perturbation", "A"]),
        "blank straddles": ("differ in case", turn("control", "A B", "A  B"), ["--hold-out-perturbation", "A B"]),
        "hold out all": ("is all there is", turn("control", "A"), ["--hold-out-perturbation", "A"]),
    }  # fmt: skip
    for joint in ("_", "|", ",", ";", "&", "-", "/", ":", " "):
        columns[f"joined by {joint}"] = (f"A{joint}B", turn("control", "A", "B", f"A{joint}B"), [])
    for name, (said, labels, more) in columns.items():
        path = folder / f"labels{len(name)}{abs(hash(name)) % 10**6}.h5ad"
        study(perturbation=labels).write_h5ad(path)
        yield Case(f"labels {name}", said, ["run", path, *KEYS, *more])
    numbers = {
        "hours": ["early", "0,5", "inf", "", "2024-01-01", "6h 3h"],
        "dose": ["high", "1,5", "inf", "", "-1", "1 uM"],
    }
    for key, values in numbers.items():
        for value in values:
            column = np.resize(np.array(["1", "2", "3"], object), n)
            column[7] = value
            cells = study(**{key: column}, perturbation=turn("control", "A", "B"))
            path = folder / f"{key}{abs(hash(value)) % 10**6}.h5ad"
            cells.write_h5ad(path)
            option = "--time-key" if key == "hours" else "--dose-key"
            yield Case(f"{key} {value!r}", key, ["run", path, *KEYS, option, key])
    more = {
        "groups missing": (study(cell_type=turn("nan", "None")), "cell_type|labelled", ["--group-key", "cell_type"]),
        "one time": (study(hours=1), "hours", ["--time-key", "hours", "--hold-out-time", "1"]),
        "all times": (study(hours=np.arange(n)), "hours", ["--time-key", "hours", "--hold-out-time", "1"]),
        "few at a time": (study(hours=np.resize([0] * 20 + [6] * 20 + [24], n)), "24", ["--time-key", "hours", "--hold-out-time", "6", "--min-cells", "9"]),
        "unknown unit": (study(), "hold_out_time", ["--time-key", "hours", "--hold-out-time", "6h"]),
        "shared dose": (study(dose=1.0), "A@1+B@10", ["--dose-key", "dose"]),
        "too few": (study(), "41 needed|min_cells", ["--group-key", "cell_type", "--hold-out", "NK", "--min-cells", "60"]),
        "no controls in the group": (study(cell_type=np.where(study().obs["perturbation"] == "control", "T", "NK")), "NK", ["--group-key", "cell_type", "--hold-out", "NK"]),
    }  # fmt: skip
    for i, (name, (cells, said, options)) in enumerate(more.items()):
        cells.write_h5ad(folder / f"more{i}.h5ad")
        yield Case(f"labels {name}", said, ["run", folder / f"more{i}.h5ad", *KEYS, *options])


# --------------------------------------------------------------------------------------------------------------- values


def wrong_values(folder: Path, rng: np.random.Generator) -> Iterator[Case]:
    "Matrices that are no expression, or not what is said of them."
    plain = study()
    log = np.log1p(plain.X / plain.X.sum(axis=1, keepdims=True) * 1e4)
    counts = np.random.default_rng(0).poisson(rng.lognormal(0, 0.5, (240, 1)) * rng.gamma(0.5, 0.8, 40))
    spots = [(int(rng.integers(240)), int(rng.integers(40))) for _ in range(12)]
    matrices = {f"nan {spot}": (np.nan, spot) for spot in spots[:4]} | {
        f"inf {spot}": (np.inf, spot) for spot in spots[4:7]
    }
    matrices |= {f"minus {spot}": (-1.0, spot) for spot in spots[7:9]} | {
        f"huge {spot}": (1e39, spot) for spot in spots[9:]
    }
    found = {}
    for name, (value, spot) in matrices.items():
        X = plain.X.astype("float64")
        X[spot] = value
        found[name] = (X, "NaN or infinite" if value != -1 else "negative values", [])
    found |= {
        "square roots": (np.sqrt(plain.X), "a square root", []), "twice": (np.log1p(log), "taken twice", []),
        "scaled": ((log - log.mean(0)) / log.std(0), "scaled or centred", []), "to one": (log / log.max(0), "scaled genes", []),
        "shallow": (counts * rng.uniform(0.5, 1, counts.shape), "--x-kind", []), "zeros": (np.zeros_like(plain.X), "no expression", []),
        "constant": (np.ones_like(plain.X), "genes vary", []), "counts as log": (plain.X, "x_kind", ["--x-kind", "log1p"]),
        "log as counts": (log, "x_kind", ["--x-kind", "counts"]), "log as linear": (log, "x_kind", ["--x-kind", "linear"]),
        "linear as counts": (plain.X / 3, "x_kind", ["--x-kind", "counts"]),
    }  # fmt: skip
    for i, (name, (X, said, options)) in enumerate(found.items()):
        cells = ad.AnnData(np.asarray(X), obs=plain.obs, var=plain.var)
        if name in ("square roots", "scaled", "twice"):
            cells.layers["counts"] = plain.X
        cells.write_h5ad(folder / f"values{i}.h5ad")
        yield Case(f"values {name}", said, ["run", folder / f"values{i}.h5ad", *KEYS, *options])
    changes = {
        "cells twice": (lambda c: setattr(c, "obs_names", ["x"] * c.n_obs), "obs_names_make_unique", []),
        "genes twice": (lambda c: setattr(c, "var_names", ["x"] * c.n_vars), "var_names_make_unique", []),
        "no X": (lambda c: setattr(c, "X", None), "X of the AnnData is empty", []),
        "no such layer": (lambda c: None, "layer 'raw'", ["--layer", "raw"]),
        "base": (lambda c: (setattr(c, "X", (log * rng.uniform(0.9, 1, log.shape)).astype("float32")), c.uns.update(log1p={"base": "ten"})), "uns['log1p']", []),
    }  # fmt: skip
    for i, (name, (change, said, options)) in enumerate(changes.items()):
        cells = study()
        change(cells)
        cells.write_h5ad(folder / f"changed{i}.h5ad")
        yield Case(f"values {name}", said, ["run", folder / f"changed{i}.h5ad", *KEYS, *options])
    plain[:, :1].copy().write_h5ad(folder / "one.h5ad")
    yield Case("values one gene", "genes vary", ["run", folder / "one.h5ad", *KEYS])
    plain[:3].copy().write_h5ad(folder / "three.h5ad")
    yield Case("values three cells", "cell", ["run", folder / "three.h5ad", *KEYS])


# ----------------------------------------------------------------------------------------------------------- modalities


def wrong_modalities(folder: Path, rng: np.random.Generator) -> Iterator[Case]:
    "MuData whose parts do not go together."
    mudata.set_options(pull_on_update=False)

    def parts() -> dict[str, ad.AnnData]:
        rna = study()
        atac = ad.AnnData((rng.random((240, 30)) < 0.3).astype("float32"), obs=rna.obs.copy())
        atac.var_names = [f"chr1:{i}00-{i}50" for i in range(30)]
        return {"rna": rna, "atac": atac}

    def write(name: str, change: Callable, rename: dict | None = None) -> Path:
        found = parts()
        change(found)
        path = folder / f"{name.replace(' ', '_')}.h5mu"
        mudata.MuData({(rename or {}).get(k, k): v for k, v in found.items()}).write_h5mu(path)
        return path

    other = lambda key: lambda p: p["atac"].obs.__setitem__(key, np.roll(p["atac"].obs[key].to_numpy(), 1))
    timed = ["--time-key", "hours", "--hold-out-time", "6"]
    cases = {
        "times disagree": (other("hours"), "hours", timed, None), "labels disagree": (other("perturbation"), "perturbation", timed, None),
        "no common cells": (lambda p: setattr(p["atac"], "obs_names", [f"{n}-1" for n in p["atac"].obs_names]), "obs_names", timed, None),
        "open everywhere": (lambda p: setattr(p["atac"], "X", p["atac"].X + 0.5), "atac", timed, None),
        "centred peaks": (lambda p: setattr(p["atac"], "X", p["atac"].X - 0.5), "atac", timed, None),
        "unknown kind": (lambda p: None, "hto", timed, {"atac": "hto"}), "no rna": (lambda p: None, "rna", [], {"rna": "one", "atac": "two"}),
        "no such modality": (lambda p: None, "prot", [*timed, "--modalities", "rna", "prot"], None),
        "nan in peaks": (lambda p: p["atac"].X.__setitem__((3, 4), np.nan), "NaN", timed, None),
    }  # fmt: skip
    for name, (change, said, options, rename) in cases.items():
        yield Case(f"modalities {name}", said, ["run", write(name, change, rename), *KEYS, *options])


# ----------------------------------------------------------------------------------------------------- options, models


def wrong_options(folder: Path, rng: np.random.Generator) -> Iterator[Case]:
    "Options that no command takes, or that do not go together."
    path = folder / "options.h5ad"
    study().write_h5ad(path)
    values = {
        "--steps": ["0", "-5", "many"], "--seed": ["-1", "4294967296", "x"], "--latent": ["0", "wide"], "--min-cells": ["0", "1"],
        "--genes": ["0", "1", "many"], "--stages": ["sac"], "--schedule": ["random"], "--init": ["zero"], "--device": ["abacus", "meta"],
        "--representation": ["umap"], "--x-kind": ["raw"], "--hold-out-time": ["6"], "--nonsense": ["1"],
    }  # fmt: skip
    for option, several in values.items():
        for value in several:
            said = {"--min-cells": "min-cells|min_cells", "--genes": "genes"}.get(
                option, option.strip("-").split("-")[0]
            )
            yield Case(f"option {option} {value}", said, ["run", path, *KEYS, f"{option}={value}"])
    (folder / "taken").write_text("mine")
    for verb, more in {
        "run": KEYS,
        "predict": [*KEYS, "--perturbation", "gene3", "--stages", "none"],
    }.items():
        yield Case(f"{verb} without keys", "--perturbation-key|perturbation_key", [verb, path])
        yield Case(f"{verb} into a file", "taken", [verb, path, *more, "--out", folder / "taken"])
        yield Case(f"{verb} where nobody writes", "/proc", [verb, path, *more, "--out", "/proc/out"])
        for name, text in {
            "nowhere.gmt": None,
            "sets.gmt": "set\tfrom\tX\tY",
            "table.csv": "gene,what\nA,high",
            "empty.csv": "",
        }.items():
            if text is not None:
                (folder / name).write_text(text)
            asked = [
                "--hold-out-perturbation" if verb == "run" else "--perturbation",
                "A" if verb == "run" else "C",
            ]
            yield Case(
                f"{verb} prior {name}", "prior|" + name, [verb, path, *more, *asked, "--prior", folder / name]
            )
    yield Case("no command", "COMMAND", [])
    yield Case("other command", "train", ["train", path])
    yield Case("unknown set", "kang19", ["datasets", "kang19"])
    yield Case(
        "predict unknown group", "Treg", ["predict", path, *KEYS, "--group-key", "cell_type", "--for", "Treg"]
    )
    bare = study()
    bare.obs.loc[bare.obs["cell_type"] == "NK", "perturbation"] = "A"
    bare.write_h5ad(folder / "bare.h5ad")
    asked = [
        "predict",
        folder / "bare.h5ad",
        *KEYS,
        "--group-key",
        "cell_type",
        "--for",
        "NK",
        "--stages",
        "none",
    ]
    yield Case(
        "predict group without control", "no control cells; there is|no control cells; did you mean 'T", asked
    )
    yield Case(
        "predict unknown perturbation",
        "ZZZ",
        ["predict", path, *KEYS, "--perturbation", "ZZZ", "--stages", "none"],
    )
    yield Case(
        "predict everything measured", "measured", ["predict", path, *KEYS, "--group-key", "cell_type"]
    )


def wrong_models(folder: Path, rng: np.random.Generator) -> Iterator[Case]:
    "Folders that hold no model, half of one, or another."
    import waddington_nb as wd

    cells = study()
    cells.write_h5ad(folder / "new.h5ad")
    wd.fit(wd.Task(cells), stages=[], n_latent=5).save(folder / "model")

    def spoiled(name: str, change: Callable[[Path], object]) -> Path:
        target = folder / f"model_{name}"
        shutil.copytree(folder / "model", target)
        change(target)
        return target

    def edit(key: str, value) -> Callable[[Path], object]:
        def change(target: Path) -> None:
            about = json.loads((target / "model.json").read_text())
            about[key] = value
            (target / "model.json").write_text(json.dumps(about))

        return change

    changes = {
        "empty": lambda t: (shutil.rmtree(t), t.mkdir()), "weightless": lambda t: (t / "model.safetensors").unlink(),
        "headless": lambda t: (t / "model.json").unlink(), "text": lambda t: (t / "model.json").write_text("{"),
        "cut": lambda t: (t / "model.safetensors").write_bytes((t / "model.safetensors").read_bytes()[:200]),
        "flipped": lambda t: (t / "model.safetensors").write_bytes(b"\xff" * 9 + (t / "model.safetensors").read_bytes()[9:]),
        "other_version": edit("format_version", 99), "other_kind": edit("kind", "song"), "edited": edit("arrays", {}),
        "list": lambda t: (t / "model.json").write_text("[]"),
    }  # fmt: skip
    for name, change in changes.items():
        target = spoiled(name, change)
        asked = ["predict", "--model", target, folder / "new.h5ad", "--perturbation", "A"]
        yield Case(f"model {name}", target.name, asked)
    ask = ["predict", "--model", folder / "model"]
    strange = study()
    strange.var_names = [f"other{i}" for i in range(strange.n_vars)]
    strange.write_h5ad(folder / "strange.h5ad")
    yield Case("model of other genes", "gene", [*ask, folder / "strange.h5ad", "--perturbation", "A"])
    yield Case("model asked for the unknown", "ZZZ", [*ask, folder / "new.h5ad", "--perturbation", "ZZZ"])
    yield Case(
        "model nowhere",
        "nomodel",
        ["predict", "--model", folder / "nomodel", folder / "new.h5ad", "--perturbation", "A"],
    )
    yield Case("model without a perturbation", "perturbation", [*ask, folder / "new.h5ad"])
    yield Case(
        "model and other control",
        "mock",
        [
            *ask,
            folder / "new.h5ad",
            "--perturbation",
            "A",
            "--perturbation-key",
            "perturbation",
            "--control",
            "mock",
        ],
    )


def wrong_environments(folder: Path, rng: np.random.Generator) -> Iterator[Case]:
    "Environments and arrays from elsewhere, by their calls."
    import gymnasium
    from gymnasium import spaces

    import waddington_nb as wd
    from waddington_nb import metrics

    class Odd(gymnasium.Env):
        def __init__(self, seen=None, action=None):
            box = spaces.Box(-1, 1, (2,), np.float32)
            self.observation_space, self.action_space = seen or box, action or box

        def reset(self, *, seed=None, options=None):
            return self.observation_space.sample(), {}

        def step(self, action):
            return self.observation_space.sample(), 0.0, False, False, {}

    box = spaces.Box(-1, 1, (2,), np.float32)
    odd = {
        "text seen": {"seen": spaces.Text(5)}, "pair seen": {"seen": spaces.Tuple([box, box])}, "unbounded": {"action": spaces.Box(-np.inf, np.inf, (1,))},
        "several": {"action": spaces.MultiDiscrete([2, 3])}, "bits": {"action": spaces.MultiBinary(3)}, "shifted": {"action": spaces.Discrete(3, start=1)},
    }  # fmt: skip
    for name, asked in odd.items():
        envs = lambda asked=asked: gymnasium.vector.SyncVectorEnv([lambda: Odd(**asked)] * 2)
        yield Case(f"environment {name}", "space", call=lambda envs=envs: wd.VectorWorld(envs(), horizon=5))
    plain = lambda: gymnasium.vector.SyncVectorEnv([Odd] * 2)
    yield Case("environment without an end", "horizon", call=lambda: wd.VectorWorld(plain()))
    x, y = rng.normal(size=(9, 4)), rng.normal(size=(8, 4))
    nan = x.copy()
    nan[2, 1] = np.nan
    for name in ("energy_distance", "wasserstein_1", "mmd_rbf", "welch_t", "sinkhorn_divergence"):
        yield Case(f"{name} of NaN", "NaN", call=lambda name=name: getattr(metrics, name)(nan, y))
        yield Case(
            f"{name} of other genes", "features", call=lambda name=name: getattr(metrics, name)(x, y[:, :3])
        )
    yield Case("mse of nothing", "empty", call=lambda: metrics.mse(x[0, :0], y[0, :0]))


FAMILIES = (
    broken_bytes, broken_structure, wrong_names, wrong_labels, wrong_values, wrong_modalities, wrong_options, wrong_models,
    wrong_environments,
)  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------- judge


def command(arguments: list) -> tuple[int, str, str]:
    "Exit code, and what was said on stdout and stderr."
    import contextlib
    import io

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(a) for a in arguments])
    said = [line.split("\r")[-1] for line in err.getvalue().splitlines()]
    return code, out.getvalue(), "\n".join(line for line in said if line and "iteration" not in line)


def advised(arguments: list, said: str) -> list | None:
    "The arguments after following a remedy that can be typed, for `check`; None if there is none."
    tail = arguments[: arguments.index("--out")] if "--out" in arguments else list(arguments)
    if arguments[0] != "run" or any("time" in str(a) or "prior" in str(a) for a in arguments):
        return None
    if meant := re.search(r"(?<!\w)'([^']+)'[^;]*; did you mean '([^']+)'", said):
        return (
            ["check", *(meant[2] if str(a) == meant[1] else a for a in tail[1:])]
            if meant[1] in map(str, tail)
            else None
        )
    if option := re.search(r"\((--layer \w+)\)", said):
        return ["check", *tail[1:], *option[1].split()]
    if kind := re.search(r"say x_kind='(\w+)'", said):
        keep = [a for i, a in enumerate(tail[1:], 1) if a != "--x-kind" and tail[i - 1] != "--x-kind"]
        return ["check", *keep, "--x-kind", kind[1]]
    return None


def judge(case: Case, out: Path) -> str:
    "What is wrong with the answer to a case, or ''."
    if case.call is not None:
        try:
            case.call()
        except DataError as error:
            code, said = 2, f"waddington: {error}"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        else:
            return "was taken"
    else:
        needs_out = (
            case.arguments and case.arguments[0] in ("run", "predict") and "--out" not in case.arguments
        )
        code, _, said = command([*case.arguments, *(["--out", out] if needs_out else [])])
    left = [p for p in out.rglob("*") if p.is_file()] if out.exists() else []
    for bad, what in [
        (code != 2, f"exit code {code}"), ("\n" in said, "several lines"), (not said.startswith("waddington: "), "no message"),
        (not any(word in said for word in case.mentions.split("|")), f"does not name {case.mentions!r}"),
        (not REMEDY.search(said), "no remedy"), ("np.str_" in said or "Traceback" in said, "jargon"), (left, f"left {left[:2]}"),
    ]:  # fmt: skip
        if bad:
            return f"{what}: {said[:300]}"
    if case.arguments and (follow := advised(case.arguments, said)):
        code, page, again = command(follow)
        if code != 0 or said.removeprefix("waddington: ") in page:
            return f"its remedy does not help: {said[:200]} -> {again or page[:200]}"
    return ""


def cases(folder: Path, seed: int = 0) -> Iterator[Case]:
    "All cases, with their files in the folder."
    for i, family in enumerate(FAMILIES):
        place = folder / family.__name__
        place.mkdir()
        yield from family(place, np.random.default_rng([seed, i]))


def main(every: int = 1, seed: int = 0) -> tuple[int, dict[str, str]]:
    "How many cases were tried, one in `every`, and what was wrong with which."
    count, wrong = 0, {}
    with tempfile.TemporaryDirectory() as folder:
        for i, case in enumerate(cases(Path(folder), seed)):
            if i % every:
                continue
            count += 1
            if said := judge(case, Path(folder) / f"out{i}"):
                wrong[case.name] = said
    return count, wrong


if __name__ == "__main__":
    tried, failed = main()
    for name, said in failed.items():
        print(f"{name:40} {said}")
    print(f"{tried} bad inputs, {len(failed)} not answered well")
    sys.exit(bool(failed))
