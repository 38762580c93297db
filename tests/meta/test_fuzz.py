"""Hostile files of every kind are refused in one line, in little time and memory; and what fuzzing once found."""

from __future__ import annotations

import io
import os
import pickle
import re
import zipfile

import numpy as np
import pytest
import torch
import yaml
from fuzz import archives, conversions, harness, misbehaving, watch
from fuzz.registry import KINDS
from optional import needs_mindspore
from PIL import Image
from safetensors.torch import save_file

from pcae_core import ModelConfig, PretrainConfig, registry
from pcae_core.convert import sources
from pcae_core.convert.metadata import ModelMetadata
from pcae_core.data import greys, images, open_source
from pcae_core.errors import CheckpointError, ConfigError, DataError, PcaeError
from pcae_core.storage import archives as guarded
from pcae_core.storage.tensors import check_tensors, load_safetensors

CASES = 40


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    worker = harness.Worker(tmp_path_factory.mktemp("fuzz"), seed=0)
    yield worker
    worker.close()


KINDS_HERE = [pytest.param(kind, marks=needs_mindspore) if kind == "ckpt" else kind for kind in KINDS]


@pytest.mark.parametrize("kind", KINDS_HERE)
def test_hostile_input(worker, kind, tmp_path):
    total, used = harness.run(kind, range(CASES), tmp_path, 0, worker)
    if used is not worker:
        used.close()
    assert not total.failures
    assert total.counts.total() == CASES
    assert total.counts["refused"] > 5


def test_models_read_by_protobuf_in_pure_python(tmp_path, monkeypatch):
    """What MindSpore chooses for its process; of case 13, whose text is no UTF-8, it makes an error of another kind."""
    monkeypatch.setenv("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
    total, used = harness.run("onnx", range(12, 16), tmp_path, 0)
    used.close()
    assert not total.failures


def test_the_harness_sees_what_it_watches_for(worker):
    total, used = harness.run("misbehaving", range(misbehaving.ACTS), worker.root, 0, worker)
    if used is not worker:
        used.close()
    told = "\n".join(total.failures)
    assert len(total.failures) == misbehaving.ACTS - 1, told
    for sign in (
        "ZeroDivisionError",
        "os.system",
        "open (",
        "pickle.find_class",
        "it took",
        "the process ended with -6",
        "without guards it takes 0.3 s",
        "without guards it takes 8",
    ):
        assert sign in told


def refused(kind: type[PcaeError], call, *arguments: object) -> str:
    with pytest.raises(kind) as caught:
        call(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_errors_are_one_printable_line_whatever_they_name():
    text = str(PcaeError("a\nb\x1b[2J\ud800\u202e" + "x" * 50_000))
    assert text.startswith("a b\\x1b[2J\\ud800\\u202exxx")
    assert text.isprintable()
    assert len(text) < 10_100
    assert text.endswith("characters more)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [x]\nb: [*a, *a]", "aliases"),
        ("&a [*a]", "aliases"),
        ("[" * 21, "nested more than 20 deep"),
        ("seed: !!int x", "invalid literal"),
        ("seed: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("when: 2001-99-99", "month must be"),
        ("weight_decay: .inf", "finite"),
        ("model: {depth: 1001}", "less than or equal to 1000"),
        ("seed: " + "9" * 5000, "digits"),
    ],
)
def test_yaml(tmp_path, text, message):
    (tmp_path / "run.yaml").write_text(text)
    assert message in refused(ConfigError, PretrainConfig.from_yaml, tmp_path / "run.yaml")


def test_plain_yaml_is_read_as_before(tmp_path):
    values = {"seed": 3, "model": {"depth": 6, "reduction": {"keep": 0.7}}, "betas": [0.9, 0.99]}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    config = PretrainConfig.from_yaml(tmp_path / "run.yaml")
    assert (config.seed, config.model.depth, config.betas) == (3, 6, (0.9, 0.99))


def test_tensors_that_numpy_cannot_hold_or_that_are_no_weights(tmp_path):
    save_file({"a": torch.zeros(2, dtype=torch.bfloat16)}, tmp_path / "a.safetensors")

    def read() -> None:  # NumPy has the type once some library has brought it
        check_tensors(tmp_path, load_safetensors(tmp_path / "a.safetensors"), {"a": (2,)})

    assert "bfloat16" in refused(CheckpointError, read)
    whole = {"a": np.zeros(2, np.int32)}
    assert "a is int32" in refused(CheckpointError, check_tensors, tmp_path, whole, {"a": (2,)})


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(2).to_sparse(), torch.zeros(2, device="meta"), torch.zeros(1).expand(100, 100),
        torch.zeros(2).to(torch.float8_e4m3fn), torch.zeros(2, dtype=torch.complex64),
    ],
    ids=["sparse", "meta", "expanded", "float8", "complex"],
)  # fmt: skip
def test_torch_files_of_tensors_that_are_not_plain(tmp_path, value):
    torch.save({"weight": value}, tmp_path / "a.pth")
    message = refused(CheckpointError, registry.create("torch").load_weights, tmp_path / "a.pth")
    assert "weight (" in message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bytearray", "it calls bytearray, which"),
        ("tensor", "it calls Tensor, which"),
        ("doubled", "it calls encode, which"),
        ("storage", "holds no patch_embed.proj.weight"),
        ("itself", "holds no patch_embed.proj.weight"),
        ("laughs", "holds no patch_embed.proj.weight"),
    ],
)
def test_torch_files_that_make_much_of_little(tmp_path, name, message):
    file = io.BytesIO()
    torch.save({}, file)
    path = tmp_path / "a.pth"
    path.write_bytes(conversions.pickled_into(file.getvalue(), pickle.dumps(conversions.GREEDY[name], 2)))
    assert message in refused(CheckpointError, sources.read, path, sources.Request())


def test_torch_files_are_gone_through_once_however_often_they_hold_a_dictionary(tmp_path):
    tree: dict[str, object] = {"weight": torch.ones(2)}
    for _ in range(8):
        tree = {"a": tree, "b": tree}
    torch.save(tree, tmp_path / "a.pth")
    assert list(registry.create("torch").load_weights(tmp_path / "a.pth")) == ["a.a.a.a.a.a.a.a.weight"]


def test_torch_files_that_unpack_or_share_out_of_proportion(tmp_path):
    load, path = registry.create("torch").load_weights, tmp_path / "a.pth"
    torch.save({"weight": torch.zeros(10**6)}, path)
    assert load(path)["weight"].shape == (10**6,)
    path.write_bytes(archives.zipped(archives.members(path.read_bytes()), zipfile.ZIP_DEFLATED))
    assert re.search(r"it unpacks from \d{4} to 400\d{4} bytes", refused(CheckpointError, load, path))
    weight = torch.zeros(10**5)
    torch.save({f"weight{number}": weight for number in range(100)}, path)
    assert "bytes, and claims to hold tensors of 40000000" in refused(CheckpointError, load, path)
    torch.save({"x" * 2000: weight}, path)
    assert "a name of more than 1000 characters" in refused(CheckpointError, load, path)


def test_a_few_tensors_do_not_make_a_model_of_any_size(tmp_path):
    tensors = {
        "patch_embed.proj.weight": np.zeros((4096, 1, 1, 1)), "cls_token": np.zeros((1, 1, 4096)),
        "pos_embed": np.zeros((1, 5, 4096)), "blocks.0.mlp.fc1.weight": np.zeros((16384, 1)),
        "blocks.99999999999.norm1.weight": np.zeros(1), "blocks.3.norm1.weight": np.zeros(1),
    }  # fmt: skip
    np.savez(tmp_path / "a.npz", **tensors)
    found, coverage = sources.read(tmp_path / "a.npz", sources.Request(metadata=ModelMetadata(num_heads=1)))
    assert found.config.model.depth == 4
    assert set(found.encoder) == {"patch_embed.proj.weight", "cls_token", "pos_embed"}
    refused(CheckpointError, coverage.require_all)


def write_npz(path, name: str, content: bytes, method: int = zipfile.ZIP_STORED) -> None:
    path.write_bytes(archives.zipped({f"{name}.npy": content}, method))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archives.bomb("images"), " to 20000078 bytes"),
        (archives.npy("|u1", (1000,), bytes(10)), "does not hold an array of shape"),
        (archives.npy("|u1", (-1, 2, 2), bytes(10)), "does not hold an array of shape"),
        (archives.npy("|O", (1,), b"cos\nsystem\n."), "holds pickled objects"),
        (archives.raw_npy(b"-" * 9000 + b"1", bytes(9)), ""),
        (b"no array", "magic string"),
    ],
    ids=["bomb", "claims more", "negative", "objects", "deep", "garbage"],
)
def test_archives(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(guarded, "_BOMB_BYTES", archives.LIMIT_BYTES)
    path = tmp_path / "a.npz"
    path.write_bytes(content) if content[:2] == b"PK" else write_npz(path, "images", content)
    assert message in refused(DataError, open_source, path, 3)
    assert message in refused(CheckpointError, registry.create("numpy").load_weights, path)


def test_archives_packed_otherwise(tmp_path):
    file = io.BytesIO()
    np.save(file, np.zeros((2, 4, 4), np.uint8))
    write_npz(tmp_path / "a.npz", "images", file.getvalue(), zipfile.ZIP_LZMA)
    assert "packed in a way" in refused(DataError, open_source, tmp_path / "a.npz", 1)
    write_npz(tmp_path / "a.npz", "images", file.getvalue(), zipfile.ZIP_DEFLATED)
    assert len(open_source(tmp_path / "a.npz", 1)) == 2


@pytest.mark.parametrize("what", ["device", "folder"])
def test_what_is_no_file_is_no_image(tmp_path, what):
    (tmp_path / "a.png").mkdir() if what == "folder" else (tmp_path / "a.png").symlink_to(os.devnull)
    assert "it is no file" in refused(DataError, images.read, tmp_path / "a.png", "a.png", 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "I"])
@pytest.mark.parametrize("in_chans", [1, 3])
def test_large_pictures_are_converted_in_strips_as_small_ones(monkeypatch, mode, in_chans):
    rng = np.random.default_rng(0)
    if mode.startswith("I"):
        picture = Image.fromarray(rng.integers(0, 2**16, (23, 7), dtype=np.uint16 if mode == "I;16" else np.int32))
    else:
        picture = Image.fromarray(rng.integers(0, 256, (23, 7, 4), dtype=np.uint8)).convert(mode)
        picture.info |= {"transparency": 3} if mode == "P" else {}
    whole = images.convert(picture, in_chans)
    monkeypatch.setattr(greys, "_STRIP_PIXELS", 35)
    assert images.convert(picture, in_chans).tobytes() == whole.tobytes()


def test_pictures_are_converted_in_the_memory_of_the_result_and_a_strip(monkeypatch):
    """Not in that of several copies: 4 MB where the picture has 16."""
    picture = Image.new("RGBA", (2000, 2000))
    monkeypatch.setattr(greys, "_STRIP_PIXELS", 2**16)
    before = watch.reset_peak()
    images.convert(picture, 1)
    assert watch.peak_mb() - before < 10


def test_sizes_of_models_are_bounded():
    for field in ("image_size", "embed_dim", "depth", "mlp_ratio"):
        with pytest.raises(ValueError, match="less than or equal"):
            ModelConfig(**{field: 1e5 if field == "mlp_ratio" else 10**5})
