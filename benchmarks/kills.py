"""Kill a training at many moments, repeat its command, and compare the end bit by bit with a run that was left alone.

    python benchmarks/kills.py [--processes 1 2] [--phases vae prior files saving tidying]
        [--signals SIGKILL SIGTERM SIGINT] [--moments 20] [--jobs 1] [--output FILE.json]

A phase is a stage of the training (a moment is a step of its optimiser), ``files`` (a moment is before one of the
operations on files while both stages train: checkpoints, latents, solvers), ``saving`` (the same while the model
directory is written) or ``tidying`` (the same while the working directory is removed). The moments are spread evenly
over those that the run left alone has. Two processes are started by torchrun, and the signal goes to one of them or to
all, torchrun included. Afterwards the same command runs again until it is done. It is a failure if the end differs in a
bit (speeds in the metrics, and training losses of several processes, excepted), if anything is left behind, if a
command ends otherwise than it should, or if SIGTERM and SIGINT write no checkpoint in a stage or do not say how to
continue. Prints a table.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

PHASES = ("vae", "prior", "files", "saving", "tidying")
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
OPERATIONS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "open"}


@dataclass(frozen=True)
class Kill:
    """One run that is killed."""

    processes: int
    ranks: str
    phase: str
    signal: str
    moment: int


# ---- the child: scldm train, with an eye on the moments -------------------------------------------------------------


class Moments:
    """Counts the moments of every phase in this process, and sends a signal at one of them."""

    def __init__(self, plan: dict[str, Any] | None) -> None:
        self.plan, self.counts, self.phase = plan, Counter(), "files"

    def pass_one(self, phase: str) -> None:
        """Count a moment; the signal of the plan is sent at its own."""
        self.counts[phase] += 1
        plan, rank = self.plan, int(os.environ.get("RANK", "0"))
        if plan is None or plan["phase"] != phase or self.counts[phase] != plan["moment"]:
            return
        # Operations on files are the first process's; of the steps, one rank is hit by its second process.
        is_mine = rank == (1 if plan["processes"] > 1 and phase in ("vae", "prior") else 0)
        if is_mine:
            number = getattr(signal, plan["signal"])
            if plan["ranks"] == "all":
                os.killpg(os.getpgid(0), number)
            else:
                os.kill(os.getpid(), number)
            time.sleep(0.2)  # until it has arrived


def child(directory: Path, plan: dict[str, Any] | None) -> None:
    """Run ``scldm train`` in this process."""
    import torch

    from scldm.cli import main
    from scldm.commands import train
    from scldm.storage import directory as storage
    from scldm.training.stage import _Stage

    torch.set_num_threads(1)
    moments = Moments(plan)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in OPERATIONS:
            return
        if event == "open" and (not isinstance(arguments[1], str) or not set(arguments[1]) & set("wax+")):
            return
        # Entries of a directory that is removed are named without it.
        if moments.phase == "tidying" or str(directory) in str(arguments[0]):
            moments.pass_one(moments.phase)

    def in_phase(name: str, function: Any) -> Any:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            before, moments.phase = moments.phase, name
            try:
                return function(*arguments, **options)
            finally:
                moments.phase = before

        return wrapped

    step = _Stage._train_step

    def counted_step(self: Any, batch: Any) -> None:
        step(self, batch)
        moments.pass_one(self.name)

    _Stage._train_step = counted_step  # type: ignore[method-assign]
    import scldm.model

    scldm.model.write_model = in_phase("saving", storage.write_model)
    train.remove_directory = in_phase("tidying", train.remove_directory)  # type: ignore[attr-defined]
    sys.addaudithook(hook)
    try:
        main(words(directory))
    finally:
        if plan is None and os.environ.get("RANK", "0") == "0":
            (directory.parent / "moments.json").write_text(json.dumps(moments.counts))


def words(directory: Path) -> list[str]:
    """Words of the command line of a tiny training, checkpoints often."""
    sizes = (
        "--vae.n-latents 2 --vae.latent-channels 4 --vae.width 16 --vae.table-width 16 --vae.n-heads 2 "
        "--vae.n-cross-heads 2 --prior.width 16 --prior.n-layers 1 --prior.n-heads 2 --prior.dropout 0.1"
    )
    data = f"--data.path {directory.parent / 'cells.h5ad'} --data.conditions kind --data.backed"
    stages = " ".join(
        f"--{stage}.cells 960 --{stage}.batch-size 32 --{stage}.checkpoint-every 160 --{stage}.validate-every 320 "
        f"--{stage}.warmup-cells 96 --{stage}.patience 0"
        for stage in ("vae-training", "prior-training")
    )
    return ["train", *f"{data} --output {directory / 'model'} --device cpu {sizes} {stages}".split()]


# ---- the parent: start, kill, repeat, compare -----------------------------------------------------------------------


def start(directory: Path, processes: int, plan: dict[str, Any] | None) -> tuple[int, str]:
    """Run the child, by torchrun if it is several processes; give its exit status and what it printed."""
    directory.mkdir(parents=True, exist_ok=True)
    if processes == 1:
        return start_fork(directory, plan)
    arguments = [__file__, "child", str(directory), json.dumps(plan)]
    command = [sys.executable, *arguments]
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        run = ("-m", "torch.distributed.run", f"--nproc_per_node={processes}", f"--master_port={port}")
        command = [sys.executable, *run, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            status = process.wait(timeout=300)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
            status = 9999
        # Workers that outlived torchrun hold the working directory.
        wait_for_group(process.pid)
        log.seek(0)
        return status, log.read()


def start_fork(directory: Path, plan: dict[str, Any] | None) -> tuple[int, str]:
    """Run the child in a fork of this process, which has imported everything: most of a short run is imports."""
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        sys.stdout.flush()
        process = os.fork()
        if process == 0:
            os.setsid()
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            status = 1
            try:
                child(directory, plan)
                status = 0
            except SystemExit as stop:
                status = stop.code if isinstance(stop.code, int) else 1
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(process, 0)
        log.seek(0)
        return os.waitstatus_to_exitcode(status), log.read()


def preload() -> None:
    """Import what every run needs; nothing is computed, so that no thread exists that a fork would lose."""
    for name in ("scldm.model", "scldm.commands.train", "scldm.storage.directory", "scldm.data.demo", "torch._dynamo"):
        importlib.import_module(name)


def wait_for_group(group: int) -> None:
    """Wait until no process of a group is left; those that do not end by themselves are killed after 40 seconds."""
    for _ in range(400):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)


def outcome(directory: Path, processes: int) -> dict[str, Any]:
    """Everything of a finished run that has to be the same."""
    content: dict[str, Any] = {}
    model = directory / "model"
    for path in sorted(model.iterdir()) if model.is_dir() else []:
        if path.suffix == ".safetensors" or path.name == "schema.json":
            content[path.name] = path.read_bytes()
    if (model / "metrics.jsonl").is_file():
        lines = [json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()]
        free = ("cells_per_second",) if processes == 1 else ("cells_per_second", "train_")
        content["metrics"] = [{k: v for k, v in line.items() if not k.startswith(free)} for line in lines]
    content["names"] = sorted(str(p.relative_to(directory)) for p in directory.rglob("*"))
    return content


def try_one(kill: Kill, root: Path, expected: dict[str, Any]) -> str:
    """Kill, repeat and compare; give what went wrong, or an empty text."""
    name = "-".join(map(str, (kill.processes, kill.ranks, kill.phase, kill.signal, kill.moment)))
    directory = root / name
    status, said = start(directory, kill.processes, vars(kill))
    in_stage = kill.phase in ("vae", "prior")
    if status == 0 and kill.phase != "tidying":
        return f"the killed run ended well: {said[-300:]}"
    if status == 9999:
        return f"the killed run did not end: {said[-300:]}"
    if in_stage and kill.signal != "SIGKILL" and (kill.processes == 1 or kill.ranks == "all"):
        if "a checkpoint is written; the same command continues the run" not in said:
            return f"it did not say how to continue: {said[-600:]}"
        if not (directory / f"model.training/{kill.phase}-checkpoint/checkpoint.json").is_file():
            return "there is no checkpoint"
    if "Traceback" in said and kill.processes == 1:
        return f"a traceback: {said[-600:]}"
    for _ in range(2):
        status, said = start(directory, kill.processes, None)
        if status == 0 or "exists already" in said:
            break
    else:
        return f"the same command ended with {status}: {said[-600:]}"
    found = outcome(directory, kill.processes)
    differing = [key for key in expected if found.get(key) != expected[key]]
    return f"these differ: {differing}, {found['names']}" if differing else ""


def make_cells(path: Path) -> None:
    """Write 240 synthetic cells of three kinds."""
    import anndata as ad
    import numpy as np
    import pandas as pd
    import scipy.sparse as sp

    rng = np.random.default_rng(0)
    kind = np.arange(240) % 3
    counts = rng.poisson(rng.gamma(1.0, 3.0, (3, 60))[kind] + 0.2).astype(np.float32)
    obs = pd.DataFrame({"kind": np.array(["A", "B", "C"])[kind]}, index=[f"cell{i}" for i in range(240)])
    ad.AnnData(sp.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(60)])).write_h5ad(path)


def main() -> None:
    if sys.argv[1:2] == ["child"]:
        child(Path(sys.argv[2]), json.loads(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=list(PHASES))
    parser.add_argument("--signals", nargs="+", choices=SIGNALS, default=list(SIGNALS))
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    preload()
    results: list[tuple[Kill, str]] = []
    with tempfile.TemporaryDirectory(prefix="scldm-kills-") as temporary:
        for processes in arguments.processes:
            root = Path(temporary) / str(processes)
            root.mkdir()
            make_cells(root / "cells.h5ad")
            status, said = start(root / "alone", processes, None)
            if status:
                sys.exit(f"the run left alone ended with {status}: {said}")
            expected, counts = outcome(root / "alone", processes), json.loads((root / "moments.json").read_text())
            print(f"{processes} processes; moments of the run left alone: {counts}", flush=True)
            kills = []
            for phase in arguments.phases:
                n = counts[phase]
                wanted = sorted({1 + i * (n - 1) // max(1, arguments.moments - 1) for i in range(arguments.moments)})
                for ranks in ("one",) if processes == 1 else ("one", "all"):
                    kills += [Kill(processes, ranks, phase, s, m) for s in arguments.signals for m in wanted]
            # A fork takes no other thread along: one process alone is tried one after the other.
            with ThreadPoolExecutor(1 if processes == 1 else arguments.jobs) as pool:
                faults = pool.map(partial(try_one, root=root, expected=expected), kills)
                for kill, fault in zip(kills, faults, strict=True):
                    results.append((kill, fault))
                    if fault:
                        print(f"{kill}: {fault}", flush=True)
    print("\n| processes | ranks | phase | signal | kills | failed |\n|---|---|---|---|---|---|")
    cells = Counter((k.processes, k.ranks, k.phase, k.signal) for k, _ in results)
    failed = Counter((k.processes, k.ranks, k.phase, k.signal) for k, fault in results if fault)
    for key, n in cells.items():
        print(f"| {' | '.join(map(str, key))} | {n} | {failed[key]} |")
    if arguments.output:
        arguments.output.write_text(json.dumps([{**vars(k), "fault": fault} for k, fault in results], indent=1))
    sys.exit(1 if sum(failed.values()) else 0)


if __name__ == "__main__":
    main()
