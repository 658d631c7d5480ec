"""`delift score --cluster`: what a person types, a client that is killed, a batch system, GPUs that are made up."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import QUICK, array_bytes, delift, model, pairs, score, start, tree

pytest.importorskip("distributed")

from delift_cli.cache.dense import Cache
from delift_cli.errors import InputError, RunError
from delift_cli.scoring.cluster import addresses, connect
from delift_cli.scoring.tuning import machine

SBATCH = """#!/bin/bash
cp "$1" "$1.kept"
setsid bash "$1.kept" >/dev/null 2>&1 &
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/bash
for job in "$@"; do kill -- "-$job" 2>/dev/null; done
"""


def test_a_client_that_is_killed_and_a_run_alone_that_goes_on(tmp_path: Path) -> None:
    pool = tmp_path / "pool.jsonl"
    pool.write_bytes(pairs(*range(90)))
    there = tmp_path / "there.delift"
    process = start("score", pool, "-m", model(), *QUICK, "-o", there, "--cluster", "local:2", "-q")
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if (there / "manifest.json").exists() and 0 < np.count_nonzero(Cache(there).rows["done"]) < 90:
            break
        time.sleep(0.02)
    process.kill()
    process.communicate()
    done = np.count_nonzero(Cache(there).rows["done"])
    assert 0 < done < 90
    assert score(pool, "-o", there).code == 0
    assert score(pool, "-o", tmp_path / "alone.delift").code == 0
    assert array_bytes(there) == array_bytes(tmp_path / "alone.delift")
    assert json.loads((there / "manifest.json").read_text())["run"]["machines"] == {machine(): 0.0}


def test_rounds_of_some_pairs(tmp_path: Path) -> None:
    pool = tmp_path / "pool.jsonl"
    pool.write_bytes(pairs(*range(24)))
    options = ("--budget", "30%")
    assert score(pool, "-o", tmp_path / "two.delift", *options, "--cluster", "local:2").code == 0
    assert score(pool, "-o", tmp_path / "alone.delift", *options).code == 0
    one, other = (
        {name: data for name, data in tree(tmp_path / name).items() if name.endswith(".npy")}
        for name in ("two.delift", "alone.delift")
    )
    assert one == other
    assert any(name.endswith("round-1/distance.npy") for name in one)


def test_jobs_of_a_batch_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, script in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    file = tmp_path / "slurm.yaml"
    file.write_text("jobs: 1\njobqueue:\n  slurm: {cores: 1, memory: 2GB, worker-extra-args: [--memory-limit, '0']}\n")
    pool = tmp_path / "pool.jsonl"
    pool.write_bytes(pairs(*range(12)))
    assert score(pool, "-o", tmp_path / "there.delift", "--cluster", file).code == 0
    assert score(pool, "-o", tmp_path / "alone.delift").code == 0
    assert array_bytes(tmp_path / "there.delift") == array_bytes(tmp_path / "alone.delift")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (None, "sbatch: No such file or directory"),
        ("#!/bin/sh\necho 'sbatch: error: no such partition' >&2; exit 1\n", "sbatch: error: no such partition"),
    ],
)
def test_a_batch_system_that_takes_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, said: str
) -> None:
    if script is not None:
        (tmp_path / "sbatch").write_text(script)
        (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    file = tmp_path / "slurm.yaml"
    file.write_text("jobqueue:\n  slurm: {cores: 1, memory: 2GB}\n")
    with pytest.raises(RunError) as told, connect(str(file)):
        pass
    assert str(told.value).startswith(f"--cluster {file}: the batch system takes no job: ")
    assert str(told.value).endswith(said)


def test_a_process_for_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "gpus", lambda: ["a GPU", "another"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    with connect("local:cuda") as connection:
        seen = connection.client.run(os.getenv, "CUDA_VISIBLE_DEVICES")
        threads = {worker["nthreads"] for worker in connection.client.scheduler_info()["workers"].values()}
    assert sorted(seen.values()) == ["3", "5"]
    assert threads == {2}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert addresses.cuda_devices() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 0,-1,1")
    assert addresses.cuda_devices() == ["2", "0"]
    monkeypatch.setattr(addresses, "gpus", list)
    with pytest.raises(InputError, match="sees no GPU"):
        addresses.cuda_devices()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "jobqueue: and under it one of htcondor, lsf"),
        ("jobs: 3", "jobqueue"),
        ("jobqueue: {slurm: {}, pbs: {}}", "jobqueue"),
        ("jobqueue: {sluurm: {}}", "jobqueue"),
        ("jobqueue: {slurm: 3}", "jobqueue"),
        ("jobqueue: {slurm: {}}\njobs: 0", "jobs is how many"),
        ("jobqueue: {slurm: {}}\njobs: many", "jobs is how many"),
        ("jobqueue: [", "is not YAML"),
    ],
)
def test_files_that_say_nothing(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "slurm.yaml"
    file.write_text(text)
    (tmp_path / "pool.jsonl").write_bytes(pairs(1, 2))
    refused = delift("score", tmp_path / "pool.jsonl", "-m", model(), *QUICK, "--cluster", file).refusal()
    assert said in refused
    assert not (tmp_path / "pool.delift").exists()


def test_ctrl_c_ends_client_and_workers_in_one_line(tmp_path: Path) -> None:
    pool = tmp_path / "pool.jsonl"
    pool.write_bytes(pairs(*range(250)))
    there = tmp_path / "there.delift"
    process = start("score", pool, "-m", model(), *QUICK, "-o", there, "--cluster", "local:1", start_new_session=True)
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if (there / "manifest.json").exists() and np.count_nonzero(Cache(there).rows["done"]):
            break
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert err.decode().splitlines()[-1].startswith("delift: interrupted")
