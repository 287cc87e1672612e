"""The same bytes from one process and from several; a killed worker; schedulers that are not there or not ready."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

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
    alone = workers.each(product, range(8))
    several = workers.each(
        product, range(8), scheduler=cluster.scheduler_address, tick=lambda item, result: came.append(item)
    )
    assert (tmp_path / "tried").exists() and several == alone and sorted(came) == list(range(8))


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
