"""Several processes that train one model: who this one is, which rows are its own, what they add up.

Every process draws the same steps, which are a function of (seed, step), takes its share of each step's
rows, and gives its gradients, weighted as they count in the whole step, to a sum. So the update is that of
one process, to rounding. Only the first process writes.

Two strategies. `ddp`: every process has the whole model, and gradients are summed here, once a step, in flat
buckets. torch's DistributedDataParallel does that from hooks inside backward, for a module that is called
once a pass: it would come between tasks, methods and techniques and the model they call in their own ways
(adversarial training calls it several times), and it wants the same passes in every process, where ours may
have none, or make one again in smaller pieces when memory runs out. `fsdp`: engine/sharding.py.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from penjing.data.batches import divide
from penjing.errors import NotSupported, TrainingFailed
from penjing.records import Batch

STRATEGIES = ("ddp", "fsdp")
BUCKET = 25 * 2**20  # bytes of gradients sent at once, as DistributedDataParallel does
LOST = datetime.timedelta(minutes=30)  # a process not heard of for so long in an exchange is lost
PATIENT = datetime.timedelta(days=1)  # while another does what it does alone, such as tokenizing


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is, and what they do together. `ALONE` is one process.

    `control`: the group for plain values, on the CPU whatever the model is on.
    """

    rank: int = 0
    world: int = 1
    strategy: str = ""
    control: Any = None

    @property
    def first(self) -> bool:
        """True in the process that writes, logs and shows."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        """True where each process holds a share of every weight."""
        return self.strategy == "fsdp" and self.world > 1

    def mine(self, batches: Sequence[Batch]) -> tuple[list[Batch], list[Batch]]:
        """This process's share of a step's micro-batches, and what it runs besides, counting for nothing.

        Sharded weights are put together by all processes at every pass, so all make the same number of them.
        """
        if self.world == 1:
            return list(batches), []
        shares = [[b for b in share if b.n_targets] for share in divide(batches, self.world)]
        own, idle = shares[self.rank], list[Batch]()
        if self.sharded and any(shares):
            smallest = min((b for share in shares for b in share), key=lambda b: b.n_tokens)
            idle = [smallest] * (max(map(len, shares)) - len(own))
        return own, idle

    def seed(self, seed: int) -> int:
        """The seed of this process for a step's: rows that lie in different processes share no dropout."""
        return (seed + self.rank * 0x9E3779B97F4A7C15) & (2**64 - 1)

    def gather(self, value: Any) -> list[Any]:
        """A plain value of every process, in the order of ranks; the same list everywhere."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value, group=self.control)
        return found

    def wait(self) -> None:
        """Until all processes are here, however long one of them works alone."""
        if self.world > 1:
            dist.monitored_barrier(self.control, timeout=PATIENT)

    @contextlib.contextmanager
    def first_ahead(self) -> Iterator[None]:
        """The first process goes through alone, then the others, who find in the cache what it left there."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def put_together(
        self,
        mean: float,
        parts: dict[str, float],
        notes: list[str],
        parameters: Sequence[nn.Parameter],
    ) -> tuple[float, dict[str, float], list[str]]:
        """A step's loss, its parts and notes over all processes, the same numbers everywhere; and gradients
        summed, in place.
        """
        if self.world == 1:
            return mean, parts, notes
        missing = [i for i, p in enumerate(parameters) if p.grad is None]
        found = self.gather((mean, parts, notes, missing))
        whole = dict[str, float]()
        for _, theirs, _, _ in found:
            for name, value in theirs.items():
                whole[name] = whole.get(name, 0.0) + value
        self.add_up(parameters, [one[3] for one in found])
        said = dict.fromkeys(note for one in found for note in one[2])
        return sum(one[0] for one in found), whole, [*said]

    def add_up(self, parameters: Sequence[nn.Parameter], missing: Sequence[Sequence[int]]) -> None:
        """Sum the gradients over all processes, in place. `missing`: every process's parameters without one;
        what is missing everywhere stays so, as in one process.
        """
        if self.world == 1 or self.sharded:  # sharded gradients are summed inside backward
            return
        nowhere = set.intersection(*map(set, missing))
        grads = []
        for i, parameter in enumerate(parameters):
            if i not in nowhere:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                grads.append(parameter.grad)
        _sum(grads)

    def check_equal(self, parameters: Sequence[nn.Parameter], when: str) -> None:
        """See that replicas have the same weights.

        Raises:
            TrainingFailed: they have not.
        """
        if self.world == 1 or self.sharded:
            return
        sums = torch.stack([p.detach().double().sum() for p in parameters]).tolist()
        found = self.gather(sums)
        other = [rank for rank, theirs in enumerate(found) if theirs != found[0]]
        if other:
            raise TrainingFailed(
                f"{self.world} processes were to hold the same weights {when}; those of process {other[0]} "
                f"are not those of process 0. Something in this run is drawn by chance or by the machine "
                f"and not by the seed, such as a plug-in's start: draw it from torch's seeded generator."
            )


ALONE = Ranks()


def _sum(grads: list[Tensor]) -> None:
    """All-reduce in buckets: while one is sent, the next is laid flat; two at most are held."""
    going: deque[tuple[list[Tensor], Tensor, Any]] = deque()
    for bucket in _buckets(grads):
        flat = torch.cat([g.reshape(-1) for g in bucket])
        going.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
        if len(going) > 2:
            _arrive(*going.popleft())
    while going:
        _arrive(*going.popleft())


def _arrive(bucket: list[Tensor], flat: Tensor, work: Any) -> None:
    work.wait()
    parts = flat.split([g.numel() for g in bucket])
    torch._foreach_copy_(bucket, [part.view_as(g) for part, g in zip(parts, bucket, strict=True)])


def _buckets(grads: list[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one type, `BUCKET` bytes together; a larger tensor is a bucket of its own."""
    bucket: list[Tensor] = []
    size = 0
    for grad in grads:
        if bucket and (size + grad.nbytes > BUCKET or grad.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(grad)
        size += grad.nbytes
    if bucket:
        yield bucket


def world_outside() -> int:
    """How many processes whoever started this one says there are (torchrun's environment); 1 when alone."""
    there = "RANK" in os.environ and "MASTER_ADDR" in os.environ
    return int(os.environ.get("WORLD_SIZE", "1")) if there else 1


@contextlib.contextmanager
def joined(strategy: str, device: torch.device, *, wanted: int | None = None) -> Iterator[Ranks]:
    """Inside, this process is one of those that torchrun started.

    `wanted` is how many the spec asks for.

    Raises:
        NotSupported: there are not so many, or CUDA has fewer devices than this machine has processes.
    """
    world = world_outside()
    if wanted is not None and wanted != world:
        raise NotSupported(
            f"`train.processes` asks for {wanted} processes; {world} were started. Leave it out, or start as "
            f"many (`torchrun --nproc-per-node {wanted}`, or `--processes {wanted}` without torchrun)."
        )
    if world == 1:
        yield ALONE
        return
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "nccl"
    dist.init_process_group(backend, timeout=LOST)
    try:
        control = None if backend == "gloo" else dist.new_group(backend="gloo", timeout=LOST)
        ranks = Ranks(dist.get_rank(), dist.get_world_size(), strategy, control)
        started = ranks.gather(strategy)
        if started != [strategy] * world:
            raise NotSupported(
                f"{world} processes were to train by `{strategy}`; they began with {started}. Give all of "
                f"them the same spec."
            )
        yield ranks
    finally:
        dist.destroy_process_group()
