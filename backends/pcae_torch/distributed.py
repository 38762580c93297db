"""Data parallelism under `torchrun`: gloo on CPU, NCCL on GPU. Without torchrun, one process and no group."""

from __future__ import annotations

import contextlib
import gc
import os
import warnings

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


class Group:
    """The processes of a run.

    Attributes:
        rank, world_size: number of this process, and number of all processes.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        self._device = device
        if self.world_size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")

    def wrap(self, module: nn.Module) -> nn.Module:
        """Wrap `module`, so that the backward pass averages its gradients over the processes."""
        if self.world_size == 1:
            return module
        # With one image per process, the class token's gradient has strides that DDP warns about and copies
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
        return DistributedDataParallel(module, gradient_as_bucket_view=True)

    @staticmethod
    def no_sync(module: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Context whose backward passes do not average the gradients; a later one does. `module` is from `wrap`."""
        return module.no_sync() if isinstance(module, DistributedDataParallel) else contextlib.nullcontext()

    def mean(self, value: float) -> float:
        """Mean over the processes."""
        return self._sum(value) / self.world_size

    def any(self, flag: bool) -> bool:
        """Whether `flag` holds in any process."""
        return self._sum(float(flag)) > 0

    def all_finite(self, value: Tensor) -> Tensor:
        """Whether the scalar is finite in every process, as a scalar on the device."""
        total = value.detach().clone()
        if self.world_size > 1:
            dist.all_reduce(total)
        return total.isfinite()

    def _sum(self, value: float) -> float:
        if self.world_size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=self._device)
        dist.all_reduce(tensor)
        return tensor.item()

    def close(self) -> None:
        """Leave the group. Collect garbage first: lingering references can crash the process at exit."""
        if dist.is_initialized():
            gc.collect()
            dist.destroy_process_group()


def local_device(device: torch.device) -> torch.device:
    """The GPU that torchrun assigns to this process."""
    if device == torch.device("cuda"):  # it has no GPU number
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device
