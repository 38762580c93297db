"""`pcae_torch.Encoder` as other people's training code uses it."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import encoders
import patience
import pytest
import runs
import torch

import pcae_torch
from pcae_core import ConfigError, pretrained, registry
from pcae_core.errors import CheckpointError, ShapeError

IMAGES = torch.from_numpy(encoders.IMAGES)
SHARDED = '''
"""Two steps on two processes, and the same two steps in each alone, must end in the same weights."""
import copy, gc, sys
import torch
import torch.distributed as dist
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel
import pcae_torch


def fsdp2(encoder):
    for block in encoder.blocks:
        fully_shard(block)
    return fully_shard(encoder)


WRAPPERS = {
    "ddp": DistributedDataParallel,
    "fsdp": lambda m: FullyShardedDataParallel(m, use_orig_params=True, device_id=torch.device("cpu")),
    "fsdp2": fsdp2,
}


def train(model, images):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(2):
        out = model(images)
        (out.logits.square().mean() + out.last_hidden_state[..., 0].square().mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model(images).logits.detach()


def main(folder):
    rank = dist.get_rank()
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    alone = pcae_torch.Encoder.from_pretrained(folder)
    alone.reduction.keep = 0.7
    fresh = copy.deepcopy(alone)
    before = alone(images).logits.detach()
    expected = train(alone, images)
    assert (expected - before).abs().max() > 0.01
    for name, wrap in WRAPPERS.items():
        got = train(wrap(copy.deepcopy(fresh)), images[2 * rank : 2 * rank + 2])
        torch.testing.assert_close(got, expected[2 * rank : 2 * rank + 2], rtol=0, atol=1e-5, msg=name)
        if rank == 0:
            print(name, "equal", flush=True)


dist.init_process_group("gloo")
main(sys.argv[1])
gc.collect()  # a sharded model's own groups go first: alive at exit, their threads end in an abort now and then
dist.barrier()
dist.destroy_process_group()
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return encoders.write(tmp_path_factory.mktemp("encoder") / "small")


@pytest.fixture
def encoder(folder) -> pcae_torch.Encoder:
    return pcae_torch.Encoder.from_pretrained(folder)


def test_it_gives_what_the_backend_gives(encoder, folder):
    found = pretrained.load(folder)
    assert (encoder.mean, encoder.std) == ((0.5,) * 3, (0.2,) * 3)
    for keep in (1.0, 0.7):
        expected = registry.create("torch").encode(found.config.model, found.encoder, encoders.IMAGES, keep)
        encoder.reduction.keep = keep
        out = encoder(IMAGES)
        assert torch.equal(out.last_hidden_state, expected.last_hidden_state)
        assert torch.equal(out.kept_ids, expected.kept_ids)
        assert torch.equal(out.logits, expected.logits)


def test_importing_the_package_is_light():
    code = "import sys, pcae_torch, pcae_mindspore; print([m for m in ('torch', 'mindspore') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
    with pytest.raises(AttributeError, match="has no attribute 'Encodr'"):
        _ = pcae_torch.Encodr


def test_state_dict_and_deepcopy(encoder, folder):
    assert set(encoder.state_dict()) == set(pretrained.load(folder).encoder)
    encoder.reduction.keep = 0.7
    other = copy.deepcopy(encoder)
    assert other.reduction.keep == 0.7
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert encoder(IMAGES).last_hidden_state.abs().max() > 0
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(other(IMAGES).last_hidden_state, encoder(IMAGES).last_hidden_state)
    other.reduction.keep = 1.0
    assert encoder.reduction.keep == 0.7


def test_gradients_reach_everything_but_the_positions(encoder):
    encoder.reduction.keep = 0.7
    out = encoder(IMAGES)
    (out.logits.sum() + out.last_hidden_state.square().sum()).backward()
    without = {name for name, parameter in encoder.named_parameters() if parameter.grad is None}
    assert without == {"pos_embed"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(encoder, dtype):
    expected = encoder(IMAGES).last_hidden_state
    out = encoder.to(dtype)(IMAGES)
    assert out.last_hidden_state.dtype == dtype
    assert (out.last_hidden_state.float() - expected).abs().max() < (0.2 if dtype == torch.bfloat16 else 0.03)


def test_autocast(encoder):
    expected = encoder(IMAGES).last_hidden_state
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = encoder(IMAGES)
    assert (out.last_hidden_state.float() - expected).abs().max() < 0.2


def test_compiled_into_one_graph(encoder):
    compiled = torch.compile(copy.deepcopy(encoder), backend="eager", fullgraph=True)
    for keep in (1.0, 0.7):
        encoder.reduction.keep = compiled.reduction.keep = keep
        expected, out = encoder(IMAGES), compiled(IMAGES)
        torch.testing.assert_close(out.last_hidden_state, expected.last_hidden_state, rtol=0, atol=1e-5)
        assert torch.equal(out.kept_ids, expected.kept_ids)
        out.logits.sum().backward()
    assert compiled.head.weight.grad.abs().max() > 0


def test_wrong_requests(encoder, folder, tmp_path):
    for keep in (0.0, 1.1, float("nan")):
        with pytest.raises(ConfigError, match=r"reduction.keep must be in \(0, 1\]"):
            encoder.reduction.keep = keep
    with pytest.raises(ShapeError, match=r"images must be \(B, 3, 16, 16\), not \(1, 3, 20, 20\)"):
        encoder(torch.zeros(1, 3, 20, 20))
    with pytest.raises(CheckpointError, match="does not exist"):
        pcae_torch.Encoder.from_pretrained(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="holds one encoder; there is no teacher to choose"):
        pcae_torch.Encoder.from_pretrained(folder, "teacher")


def test_ddp_and_fsdp(folder, tmp_path):
    (tmp_path / "sharded.py").write_text(SHARDED)
    launch = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    done = subprocess.run(
        [sys.executable, *launch, tmp_path / "sharded.py", folder],
        capture_output=True, text=True, env=runs.environment(), timeout=patience.SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:3] == ["ddp equal", "fsdp equal", "fsdp2 equal"]


def test_dense_features(encoder):
    encoder.reduction.keep = 0.7
    out = encoder(IMAGES)
    grid = registry.create("torch").restore_grid(
        out.last_hidden_state[:, 1:], out.kept_ids, 16, registry.create("torch").patchify(IMAGES, 4)
    )
    assert grid.shape == (4, 16, 24)
    grid.square().sum().backward()
    assert encoder.cls_token.grad.abs().max() > 0
