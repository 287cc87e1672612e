"""The same bytes from one process and from several; a killed worker; schedulers that are not there or not ready."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import GROUPS

import waddington_nb as wd
from waddington_nb import workers

distributed = pytest.importorskip(
    "distributed", reason="dask is not installed: pip install 'waddington_nb[cluster]'"
)


@pytest.fixture(scope="module")
def cluster():
    "A scheduler and two workers on loopback."
    here = {"threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": "CRITICAL"}
    with distributed.LocalCluster(n_workers=2, **here) as cluster:
        yield cluster


def test_a_killed_worker_is_replaced_and_its_task_done_again(cluster, tmp_path):
    def product(seed: int) -> bytes:
        "A product of matrices; the third one, at its first try, ends the process."
        first = Path(tmp_path) / "tried"
        if os.getpid() != here and seed == 2 and not first.exists():
            first.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        a, b = np.random.default_rng(seed).normal(size=(2, 300, 300))
        return (a @ b).tobytes()

    here, came = os.getpid(), []
    alone = workers.each(product, range(20))  # more than are handed out at once
    keep = lambda item, result: (came.append(item), result)[1]
    several = workers.each(product, range(20), scheduler=cluster.scheduler_address, keep=keep)
    assert (tmp_path / "tried").exists() and several == alone and sorted(came) == list(range(20))


def test_an_error_of_a_task_is_the_users_to_read(cluster):
    def refused(item: int):
        if item == 1:  # one alone, since results come in any order
            raise wd.DataError(f"item {item} is bad; leave it out")

    with pytest.raises(wd.DataError, match="item 1 is bad; leave it out"):
        workers.each(refused, [0, 1, 2], scheduler=cluster.scheduler_address)


def test_a_leaderboard_of_two_workers_is_that_of_one(cluster, cells):
    def jittered(task, seed: int):
        guess = wd.mean_shift(task)
        guess.X = guess.X + np.abs(np.random.default_rng(seed).normal(size=guess.shape)).astype("float32")
        return guess

    methods, keys = {"jittered": jittered}, {"group_key": "cell_type", "seeds": [0, 1]}
    alone = wd.leaderboard(cells, methods, **keys)
    several = wd.leaderboard(cells, methods, **keys, scheduler=cluster.scheduler_address)
    assert alone.to_csv().encode() == several.to_csv().encode() and alone.attrs == several.attrs


def test_a_scheduler_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(workers, "_PATIENCE", 1)
    began = time.monotonic()
    with pytest.raises(
        wd.DataError, match=r"no scheduler answers at tcp://127.0.0.1:9 within 1 s .*dask scheduler"
    ):
        workers.each(abs, [1], scheduler="tcp://127.0.0.1:9")
    assert time.monotonic() - began < 5
    with pytest.raises(wd.DataError, match="no scheduler answers at nonsense"):
        workers.each(abs, [1], scheduler="nonsense://x")


def test_workers_of_another_version(cluster, monkeypatch):
    monkeypatch.setattr(workers, "__version__", "9.9.9")
    with pytest.raises(wd.DataError, match=r"has version 0.2.0, here waddington_nb is 9.9.9; install that"):
        workers.each(abs, [1], scheduler=cluster.scheduler_address)


def test_a_scheduler_without_workers():
    here = {"n_workers": 0, "dashboard_address": ":0", "silence_logs": "CRITICAL"}
    with (
        distributed.LocalCluster(**here) as empty,
        pytest.raises(wd.DataError, match="has no workers; start one with 'dask worker tcp://"),
    ):
        workers.each(abs, [1], scheduler=empty.scheduler_address)


def test_a_contest_that_was_stopped_goes_on(cells, tmp_path):
    def stopped(task):
        ran.append(task.hold_out_group)
        if len(ran) == 3:
            raise KeyboardInterrupt
        return wd.mean_shift(task)

    ran, keys = [], {"group_key": "cell_type", "kept": tmp_path / "kept.csv"}
    with pytest.raises(KeyboardInterrupt):
        wd.leaderboard(cells, {"ours": stopped}, **keys)
    scores = wd.leaderboard(cells, {"ours": stopped}, **keys)
    assert ran == ["B", "NK", "T", "T"]
    whole = wd.leaderboard(cells, {"ours": stopped}, group_key="cell_type")
    assert scores.to_csv() == whole.to_csv()
    with pytest.raises(wd.DataError, match="is of another contest"):
        wd.leaderboard(cells, {"theirs": stopped}, **keys)
    cells.X[0, 0] += 1
    with pytest.raises(wd.DataError, match="is of another contest"):
        wd.leaderboard(cells, {"ours": stopped}, **keys)


def test_workers_are_forks_that_find_the_package_loaded(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\n"
        "import waddington_nb.metrics\n"
        "from waddington_nb.workers import each\n"
        "def there(i):\n"
        "    return os.getppid(), 'waddington_nb.metrics' in sys.modules\n"
        "if __name__ == '__main__':\n"
        "    found = each(there, range(4), workers=2)\n"
        "    print(len({parent for parent, _ in found}), all(loaded for _, loaded in found))\n"
    )
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert ran.stdout.strip() == "1 True", ran.stderr


def grid_of(cells, path) -> list:
    "The command that predicts the perturbed B cells, which a file lacks."
    missing = (cells.obs["cell_type"] == "B") & (cells.obs["perturbation"] != "control")
    cells[~missing].copy().write_h5ad(path)
    return ["predict", path, *GROUPS, "--stages", "none", "--latent", "8"]


def test_a_grid_that_workers_predict_is_that_of_one_process(cluster, cells, tmp_path, waddington):
    asked = grid_of(cells, tmp_path / "cells.h5ad")
    at = ["--scheduler", cluster.scheduler_address]
    for out, more in {"one": [], "several": at}.items():
        assert waddington(*asked, "--out", tmp_path / out, *more)[0] == 0
    one, several = (
        sorted(p for p in (tmp_path / out).rglob("*") if p.is_file()) for out in ("one", "several")
    )
    assert [p.name for p in one] == [p.name for p in several] and "predicted.h5ad" in {p.name for p in one}
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in several]


def test_a_disk_that_is_full_and_a_kept_model(cells, tmp_path, waddington, monkeypatch):
    asked = grid_of(cells, tmp_path / "cells.h5ad")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("waddington_nb.folders._room", full)
        code, said = waddington(*asked, "--out", tmp_path / "full")
    assert code == 2 and "No space left on device); free space there" in said
    assert not list((tmp_path / "full").glob("*predicted*"))
    code, said = waddington("predict", "--model", tmp_path, tmp_path / "cells.h5ad", "--workers", "2")
    assert code == 2 and "--workers shares out a grid" in said


def test_a_full_disk_on_a_worker_is_named(cluster):
    def full(item: int):
        raise OSError(28, "No space left on device", "/scratch/part")

    with pytest.raises(wd.DataError, match=r"could not do 1 \(No space left on device\); see to its disk"):
        workers.each(full, [1], scheduler=cluster.scheduler_address)


@pytest.mark.parametrize("command", ["predict", "landscapes", "reproduce-paper"])
def test_no_workers_at_all(command, waddington):
    code, said = waddington(command, *["cells.h5ad"] * (command == "predict"), "--workers", "0")
    assert code == 2 and "'0' is not a whole number of at least 1" in said
