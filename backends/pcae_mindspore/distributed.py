"""Data parallelism under `msrun`: mccl on CPU, HCCL on Ascend, NCCL on GPU. Without msrun, one process and no group."""

from __future__ import annotations

import itertools
import os

import mindspore as ms
from mindspore import Tensor, communication, mint, ops
from mindspore.ops.primitive import constexpr

from pcae_mindspore import _compat, updates


class Group:
    """The processes of a run.

    Attributes:
        rank, world_size: number of this process, and number of all processes.
    """

    def __init__(self, device: str) -> None:
        self.rank, self.world_size = 0, 1
        if "MS_WORKER_NUM" in os.environ:  # set by msrun
            self.rank, self.world_size = _compat.join_group(device)
            print(f"rank {self.rank} is process {os.getpid()}", flush=True)  # msrun names only process ids
        self._sum = ops.AllReduce() if self.world_size > 1 else None
        self._map = ops.HyperMap()

    def mean_gradients(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Mean over the processes, by one reduction of all gradients joined together. It can be compiled."""
        if self._sum is None:
            return gradients
        flat = mint.cat(self._map(updates.flatten, gradients), 0)
        mean = self._sum(flat) / self.world_size
        return self._map(ops.partial(updates.part_of, mean), _offsets(self._map(updates.size, gradients)), gradients)

    def mean(self, value: float) -> float:
        """Mean over the processes."""
        return self._total(value) / self.world_size

    def any(self, flag: bool) -> bool:
        """Whether `flag` holds in any process."""
        return self._total(float(flag)) > 0

    def _total(self, value: float) -> float:
        if self._sum is None:
            return value
        return float(self._sum(Tensor([value], ms.float32)).asnumpy()[0])

    def close(self) -> None:
        """Leave the group."""
        if self._sum is not None:
            communication.release()
            self._sum = None


@constexpr
def _offsets(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Offset of each part when parts of these sizes are joined."""
    return tuple(itertools.accumulate(sizes[:-1], initial=0))
