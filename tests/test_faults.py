"""A run that is killed goes on to the same bytes; a disk that fills leaves nothing half-written."""

import os
import resource
import signal
import subprocess
import sys
import time

import pytest
from conftest import arguments
from safetensors import safe_open
from safetensors.numpy import load_file

COMMAND = [sys.executable, "-c", "import sys; from waddington_nb.cli import main; sys.exit(main())"]
SAME = (
    "metrics.csv",
    "policy.safetensors",
    "predicted.h5ad",
    "trajectories.h5ad",
    "model/model.safetensors",
    "model/model.json",
)
HANG = 1800  # seconds; a busy machine is slow, not broken


def start(*options, **more) -> subprocess.Popen:
    return subprocess.Popen(
        [*COMMAND, *options], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more
    )


def results(out) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in SAME}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "An uninterrupted run."
    from conftest import made_up

    folder = tmp_path_factory.mktemp("whole")
    made_up().write_h5ad(folder / "cells.h5ad")
    process = start(*long_arguments(folder / "cells.h5ad", folder / "out"))
    assert process.wait(HANG) == 0, process.stderr.read()
    return folder / "cells.h5ad", folder / "out"


def long_arguments(cells, out, *more):
    options = arguments(cells, out, *more)
    options[options.index("--steps") + 1] = "60000"
    return options


def test_killed_twice_and_resumed(whole, tmp_path):
    cells, one = whole
    out = tmp_path / "out"
    for stage, more in [("trpo", []), ("ppo", ["--resume"])]:
        process = start(*long_arguments(cells, out, *more))
        deadline = time.monotonic() + HANG
        while time.monotonic() < deadline and not _has_reached(out / "checkpoint.safetensors", stage):
            time.sleep(0.02)
        assert process.poll() is None, "the run was over before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert [p.name for p in out.iterdir() if not p.name.startswith(".")] == ["checkpoint.safetensors"]

    again = start(*long_arguments(cells, out))
    assert again.wait(HANG) == 2 and "add --resume" in again.stderr.read()
    (out / "metrics.csv").write_text("as if killed while results were put in place")
    resumed = start(*long_arguments(cells, out, "--resume"))
    assert resumed.wait(HANG) == 0, resumed.stderr.read()
    assert results(out) == results(one)
    assert not (out / "checkpoint.safetensors").exists() and not list(out.glob(".*"))
    complete = start(*long_arguments(cells, out, "--resume"))
    assert complete.wait(HANG) == 0 and results(out) == results(one)


def _has_reached(checkpoint, stage: str) -> bool:
    if not checkpoint.exists():
        return False
    with safe_open(checkpoint, "np") as file:
        return f'"stage": "{stage}"' in file.metadata()["history"]


def test_damaged_checkpoint_is_refused(whole, tmp_path):
    cells, _ = whole
    out = tmp_path / "out"
    out.mkdir()
    (out / "checkpoint.safetensors").write_bytes(b"half a checkpoint")
    process = start(*long_arguments(cells, out, "--resume"))
    assert process.wait(HANG) == 2 and "is damaged" in process.stderr.read()


def test_full_disk(whole, tmp_path):
    "A limit on the size of files stands in for a full disk: writes beyond it fail in the same way."
    cells, one = whole
    largest = sorted(p.stat().st_size for p in one.rglob("*") if p.is_file())[-1]

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest // 2, largest // 2))

    options = arguments(cells, tmp_path / "out")
    process = start(*options, preexec_fn=limit)
    _, said = process.communicate(timeout=HANG)
    assert process.returncode == 2, said
    assert "cannot write" in said.splitlines()[-1]
    left = [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert left in ([], ["checkpoint.safetensors"])


def test_one_line_on_stderr_in_a_process_of_its_own(whole, tmp_path):
    "Libraries warn about what we refuse; the user reads the refusal only."
    import anndata as ad

    cells = ad.read_h5ad(whole[0])
    cells.obs_names = ["cell"] * cells.n_obs
    cells.write_h5ad(tmp_path / "twice.h5ad")
    process = start(*arguments(tmp_path / "twice.h5ad", tmp_path / "out"))
    _, said = process.communicate(timeout=HANG)
    assert process.returncode == 2 and len(said.splitlines()) == 1 and "not unique" in said
    assert not (tmp_path / "out").exists()


def test_weights_are_readable_by_anyone(whole):
    _, one = whole
    weights = load_file(one / "policy.safetensors")
    assert {"policy.skip.weight", "policy.log_std", "policy.network.0.weight"} <= set(weights)
    assert os.path.getsize(one / "policy.safetensors") > 1000


def test_two_runs_at_once_in_one_folder(whole, tmp_path):
    "The second is refused; the first ends as if alone, with the bytes of an earlier run of the same seed."
    cells, one = whole
    out = tmp_path / "out"
    first = start(*long_arguments(cells, out))
    deadline = time.monotonic() + HANG
    while time.monotonic() < deadline and not (out / ".running").exists():
        time.sleep(0.02)
    second = start(*long_arguments(cells, out, "--resume"))
    _, said = second.communicate(timeout=HANG)
    assert second.returncode == 2 and f"process {first.pid}" in said and "choose another --out" in said
    assert first.wait(HANG) == 0, first.stderr.read()
    assert results(out) == results(one)
