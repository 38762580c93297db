"""Data parallelism on one machine: two processes of one thread against one process of two, the same global batch.

    python benchmarks/two_processes.py [--model vit_small_patch16_224] [--batch 16]

Gradients are exchanged by gloo, as `torchrun` would have it. Both wait for their turn without computing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection

from interleave import interleaved, parser, ratio, report, short

THREADS = 2


def work(orders: Connection, model: str, batch: int, rank: int, world_size: int, threads: int, port: int) -> None:
    """One process: a step for each order."""
    group = {"RANK": rank, "WORLD_SIZE": world_size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in group.items()}
    import torch
    from pretraining_step import batch_of

    from pcae_core import ModelConfig, PretrainConfig, registry

    torch.set_num_threads(threads)
    config = PretrainConfig(model=ModelConfig.preset(model), batch_size=batch, drop_path=0.0)
    pretrainer = registry.create("torch", device="cpu").create_pretrainer(config)
    images, noise = (values[rank::world_size] for values in batch_of(config))
    while orders.recv():
        orders.send(pretrainer.step(images, noise, learning_rate=1e-4, momentum=0.999).loss.item())
    pretrainer.close()


def start(options: argparse.Namespace, world_size: int) -> tuple[list[Connection], list[multiprocessing.Process]]:
    context = multiprocessing.get_context("spawn")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ends, processes = [], []
    for rank in range(world_size):
        here, there = context.Pipe()
        arguments = (there, options.model, options.batch, rank, world_size, options.threads // world_size, port)
        processes.append(context.Process(target=work, args=arguments))
        processes[-1].start()
        ends.append(here)
    return ends, processes


def step(ends: list[Connection]) -> Callable[[], list[float]]:
    def call() -> list[float]:
        for end in ends:
            end.send(True)
        return [end.recv() for end in ends]

    return call


def main() -> None:
    made = parser(__doc__, rounds=9, batch=16)
    made.add_argument("--model", default="vit_small_patch16_224")
    options = made.parse_args()
    options.threads, options.cpu_time = THREADS, False
    groups = {"one": start(options, 1), "two": start(options, 2)}
    times = interleaved({name: step(ends) for name, (ends, _) in groups.items()}, options)
    for ends, processes in groups.values():
        for end in ends:
            end.send(False)
        for process in processes:
            process.join()
    setting = f"{short(options.model)}, batch {options.batch}"
    report("one process, 2 threads / two of 1 thread", setting, ratio(times, "one", "two"), options, at_least=0.9)


if __name__ == "__main__":
    main()
