"""The child process of a race: one system, in its own process, with its own environment and memory.

It is started by `Child` below with a Job, speaks JSON lines on its stdout and is told `go N` on its stdin. In
`turns` it makes N steps of its own training and waits again, so that systems that could not share a process
(accelerate keeps one precision a process) take turns on the same quiet cores.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from bench.systems import Job, job_of

PEAK_AFTER = 60  # steps after which peak memory is read


class Turns:
    """Counts the steps of one system, and holds it where it is until its next turn."""

    def __init__(self, say: Callable[[dict[str, Any]], None], sync: Callable[[], None]) -> None:
        self.say, self.sync = say, sync
        self.left, self.total = 0, 0
        self.block: dict[str, Any] = {}
        self.peak: tuple[int, float] = (0, 0.0)
        self.seen: set[str] = set()  # types that the first linear layer's output really had

    def wait(self) -> bool:
        """Until the parent says `go N`; False when it says stop or is gone."""
        word, _, number = sys.stdin.readline().strip().partition(" ")
        if word != "go":
            return False
        self.left = int(number)
        self.block = {"rows": 0, "tokens": 0, "padded": 0, "each": [], "cpu_s": time.process_time()}
        self.began = self.last = time.perf_counter()
        return True

    def after_step(self, rows: int, tokens: int, padded: int) -> bool:
        """Note one step; at a block's end report and wait. False when it is over."""
        self.left -= 1
        self.total += 1
        if self.left == 0:
            self.sync()
        now = time.perf_counter()
        self.block["each"].append(now - self.last)
        self.last = now
        for key, n in (("rows", rows), ("tokens", tokens), ("padded", padded)):
            self.block[key] += n
        if self.total <= PEAK_AFTER:
            self.peak = (self.total, peak_mib())
        if self.left:
            return True
        self.block["seconds"] = now - self.began
        self.block["cpu_s"] = time.process_time() - self.block["cpu_s"]
        self.say(
            {**self.block, "total": self.total, "peak_after": self.peak[0], "peak_mib": self.peak[1]}
            | {"types": sorted(self.seen)}
        )
        return self.wait()

    def watch_type(self, trunk: Any) -> None:
        """Note the type of what the trunk's first linear layer gives in its first forward."""
        from torch import nn

        def note(module: Any, args: Any, output: Any) -> None:
            self.seen.add(str(output.dtype).removeprefix("torch."))
            handle.remove()

        # an adapted layer may use its base layer's weight without calling it
        layers = (m for m in trunk.modules() if isinstance(m, nn.Linear) or hasattr(m, "base_layer"))
        handle = next(layers).register_forward_hook(note)


def peak_mib() -> float:
    """Highest memory so far, MiB: the device's where CUDA is in use, else this process's resident size."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_allocated()) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """The child: do the job on the command line."""
    voice = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes to the error stream
    job = job_of(sys.argv[1])

    def say(value: dict[str, Any]) -> None:
        voice.write(json.dumps(value) + "\n")

    if job.system.ours or job.settings.peers_sleep:
        from penjing.threads import wait_without_spinning

        wait_without_spinning()  # as the command `penjing` does, before torch is there
    if job.what == "losses":
        from bench.losses import measure

        say(measure(job))
    elif job.what == "cell":
        say(_our_cell(job) if job.system.ours else _peer_cell(job))
    elif job.system.ours:
        _our_turns(job, say)
    else:
        _peer_turns(job, say)


def _sync() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _our_turns(job: Job, say: Callable[[dict[str, Any]], None]) -> None:
    from bench import ours

    made = ours.build(job)
    turns = Turns(say, _sync)
    turns.watch_type(made.made.model.trunk)
    say({"ready": True, "loaded_mib": peak_mib(), **ours.facts(made)})
    if not turns.wait():
        return
    if job.system.trials > 1:
        for steps in ours.bank(made, job.system.trials).steps():
            tokens = sum(step.n_tokens for step in steps.values())
            if not turns.after_step(sum(step.n_rows for step in steps.values()), tokens, tokens):
                return
        return
    for step in ours.loop(made):
        if not turns.after_step(step.n_rows, step.n_tokens, step.n_tokens):
            return


def _peer_turns(job: Job, say: Callable[[dict[str, Any]], None]) -> None:
    from transformers import TrainerCallback

    from bench import peers

    turns = Turns(say, _sync)
    begun = False

    class Taking(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            nonlocal begun
            say({"ready": True, "loaded_mib": peak_mib()})
            begun = turns.wait()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if not (begun and turns.after_step(*peer.counts[state.global_step - 1])):
                control.should_training_stop = True

    peer = peers.build(job, callbacks=[Taking()])
    turns.watch_type(peers.trunk_of(peer.trainer.model))
    peer.trainer.train()


def _our_cell(job: Job) -> dict[str, Any]:
    from bench import ours

    began = time.perf_counter()
    made = ours.build(job)
    start, tokens, loss = time.perf_counter(), 0, 0.0
    for step in ours.loop(made):
        tokens, loss = tokens + step.n_tokens, step.loss
    _sync()
    seconds = time.perf_counter() - start
    scores = {split: ours.accuracy(made, split) for split in ("valid", "test")}
    return {
        **scores,
        "steps": made.steps,
        "train_s": seconds,
        "wall_s": time.perf_counter() - began,
        "tokens": tokens,
        "last_loss": loss,
        **_weights(made.made.model),
        "precision": made.machine.precision,
        "peak_mib": peak_mib(),
    }


def _peer_cell(job: Job) -> dict[str, Any]:
    from bench import peers

    began = time.perf_counter()
    peer = peers.build(job)
    start = time.perf_counter()
    result = peer.trainer.train()
    _sync()
    seconds = time.perf_counter() - start
    tokens = sum(n for _, n, _ in peer.counts[: peer.steps])
    scores = {split: peers.accuracy(peer, split) for split in ("valid", "test")}
    return {
        **scores,
        "steps": int(peer.trainer.state.global_step),
        "train_s": seconds,
        "wall_s": time.perf_counter() - began,
        "tokens": tokens,
        "mean_loss": float(result.training_loss),
        **_weights(peer.trainer.model),
        "precision": job.system.precision,
        "peak_mib": peak_mib(),
    }


def _weights(model: Any) -> dict[str, int]:
    """Parameters in all, and those that train, the head's too."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return {"parameters": sum(n for n, _ in sizes), "trainable": sum(n for n, on in sizes if on)}


class Child:
    """A worker process as its parent sees it; a context manager that ends it."""

    def __init__(self, job: Job, log: Path) -> None:
        self.log: TextIO = log.open("a", encoding="utf-8")
        self.job, self.path = job, log
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", job.text()],
            cwd=Path(__file__).resolve().parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )

    def hear(self) -> dict[str, Any]:
        """The next line it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            tail = "\n".join(self.path.read_text(encoding="utf-8").splitlines()[-15:])
            raise SystemExit(f"`{self.job.system.name}` ended early ({self.path}):\n{tail}")
        found: dict[str, Any] = json.loads(line)
        return found

    def go(self, steps: int) -> dict[str, Any]:
        """Let it make so many steps; what it reports."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"go {steps}\n")
        self.process.stdin.flush()
        return self.hear()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: Any) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.terminate()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


if __name__ == "__main__":
    main()
