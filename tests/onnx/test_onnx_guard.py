"""Model files that are damaged, changed, or lead out of their folder are refused with one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx_models import CONFIG, exported, pixels, weights

from pcae_core import registry
from pcae_core.errors import BackendError, ModelFileError
from pcae_onnx import triton, writer
from pcae_onnx.session import InferenceSession
from pcae_onnx.staging import data_files


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory) -> Path:
    return exported(tmp_path_factory.mktemp("onnx") / "dynamic", keep=None).path


@pytest.fixture
def copy(dynamic, tmp_path) -> Path:
    return Path(shutil.copy(dynamic, tmp_path / "model.onnx"))


def refused(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        InferenceSession(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_damaged_files_are_refused(copy, tmp_path):
    assert "there is no model at" in refused(tmp_path / "nowhere")
    whole = copy.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:-1], b"GIF89a, no model", whole[:200]):
        copy.write_bytes(content)
        assert "truncated" in refused(copy) or "metadata" in refused(copy)
    copy.write_bytes(b"")
    assert "was not exported by PCAE: its metadata is missing" in refused(copy)


def _without_metadata(model):
    del model.metadata_props[:]


def _damaged_metadata(model):
    next(entry for entry in model.metadata_props if entry.key == "pcae.schedule").value = '{"keep": 3'


def _surplus_metadata(model):
    model.metadata_props.add(key="pcae.plugin", value='"x.so"')


def _other_channels(model):
    entry = next(entry for entry in model.metadata_props if entry.key == "pcae.preprocessing")
    entry.value = json.dumps(json.loads(entry.value) | {"mean": [0.5]})


def _other_operator(model):
    model.graph.node[5].op_type = "Loop"


def _other_domain(model):
    model.graph.node[5].domain = "com.microsoft"


def _imported_domain(model):
    model.opset_import.add(domain="com.microsoft", version=1)


def _other_output(model):
    model.graph.output[0].name = "hidden"


def _other_input(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4


def _graph_in_a_node(model):
    model.graph.node[5].attribute.append(onnx.helper.make_attribute("then_branch", onnx.GraphProto(name="x")))


def _local_function(model):
    model.functions.add(name="f", domain="x")


def _splits_beyond(model):
    node = next(node for node in model.graph.node if node.op_type == "Split")
    next(attribute for attribute in node.attribute if attribute.name == "num_outputs").i = len(node.output) + 1


def _sparse(model):
    tensor = onnx.helper.make_tensor("sparse", onnx.TensorProto.FLOAT, [1], [1.0])
    ids = onnx.helper.make_tensor("ids", onnx.TensorProto.INT64, [1], [3])
    model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(tensor, ids, [8]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_metadata, "metadata is missing"),
        (_damaged_metadata, "metadata .* is damaged"),
        (_surplus_metadata, "plugin: Extra inputs"),
        (_other_channels, "preprocessing does not fit the model"),
        (_other_operator, "holds the operator 'Loop'"),
        (_other_domain, r"holds the operator 'com\.microsoft\."),
        (_imported_domain, "beyond the standard"),
        (_other_output, "inputs and outputs"),
        (_other_input, "inputs and outputs"),
        (_graph_in_a_node, "graph within a graph"),
        (_local_function, "beyond the standard"),
        (_sparse, "sparse weights"),
        (_splits_beyond, "splits into other"),
    ],
)
def test_changed_models_are_refused(copy, change, message):
    model = onnx.load(copy)
    change(model)
    onnx.save(model, copy)
    assert re.search(message, refused(copy))


@pytest.mark.parametrize("text", [b"pcae.name", b"TopK"])
def test_names_that_are_no_text_are_refused(copy, text):
    """As protobuf's C implementation lets them through; the one in pure Python refuses the file."""
    data = copy.read_bytes()
    assert text in data
    copy.write_bytes(data.replace(text, b"\xff" * len(text)))
    assert re.search("no text|truncated", refused(copy))


def test_what_the_runtime_refuses_is_one_line(copy):
    model = onnx.load(copy)
    model.graph.node[5].input[0] = "nowhere"
    onnx.save(model, copy)
    assert f"ONNX Runtime {onnxruntime.__version__} refuses" in refused(copy)


@pytest.fixture
def external(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(writer, "EXTERNAL_DATA_BYTES", 1000)
    return exported(tmp_path / "large", keep=0.7, name="large").path


def data_of(model: Path) -> Path:
    (data,) = data_files(model)
    return data


def test_large_models_keep_their_weights_beside_them(external, monkeypatch, tmp_path):
    assert external.stat().st_size < data_of(external).stat().st_size
    moved = Path(shutil.move(external.parent, tmp_path / "moved"))
    monkeypatch.chdir(tmp_path)
    got = InferenceSession(moved).run(pixels(2))
    expected = registry.create("numpy").encode(CONFIG, weights(), pixels(2), 0.7)
    np.testing.assert_allclose(got.last_hidden_state, expected.last_hidden_state, atol=1e-4)
    former = tmp_path / "repository" / "large" / "1" / "model.onnx.00000000.data"
    former.parent.mkdir(parents=True)
    former.touch()
    root = triton.write_repository(moved / "model.onnx", InferenceSession(moved).info, tmp_path / "repository")
    names = {str(path.relative_to(root)) for path in root.rglob("*")}
    assert names == {"config.pbtxt", "1", "1/model.onnx", f"1/{data_of(moved / 'model.onnx').name}"}
    assert InferenceSession(root / "1").run(pixels(2)).kept_ids.tolist() == got.kept_ids.tolist()


@pytest.mark.parametrize("dtype", ["fp16", "int8"])
def test_large_narrow_models_keep_their_weights_beside_them(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(writer, "EXTERNAL_DATA_BYTES", 1000)
    data = data_of(exported(tmp_path, keep=0.7, dtype=dtype).path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"model.onnx", data.name, "config.json", "preprocessor_config.json"}
    assert InferenceSession(tmp_path).run(pixels(2)).kept_ids.shape == (2, 11)


def test_a_small_model_leaves_no_data_of_a_larger_one(external, monkeypatch):
    monkeypatch.setattr(writer, "EXTERNAL_DATA_BYTES", 10**9)
    exported(external.parent, keep=0.7)
    assert not data_files(external)


@pytest.mark.parametrize("location", ["/etc/hostname", "../other.data", "sub/model.onnx.data", "", ".."])
def test_weights_outside_the_folder_are_refused(external, location):
    shutil.copy(data_of(external), external.parent.parent / "other.data")
    model = onnx.load(external, load_external_data=False)
    tensor = next(t for t in model.graph.initializer if t.external_data)
    next(entry for entry in tensor.external_data if entry.key == "location").value = location
    external.write_bytes(model.SerializeToString())
    assert "outside its own folder" in refused(external)


def test_a_graph_that_fails_when_it_runs_is_one_line(copy):
    model = onnx.load(copy)
    sizes = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT64]
    for tensor in sizes:
        tensor.raw_data = np.full(len(tensor.raw_data) // 8, 7, np.int64).tobytes()
    onnx.save(model, copy)
    with pytest.raises(ModelFileError) as caught:
        InferenceSession(copy).run(pixels(1))
    assert "\n" not in str(caught.value)


def test_metadata_that_is_nested_deeply_is_refused(copy):
    model = onnx.load(copy)
    model.metadata_props[0].value = "[" * 20_000
    onnx.save(model, copy)
    assert "is damaged" in refused(copy)


def test_weights_of_an_impossible_name_are_refused(external):
    model = onnx.load(external, load_external_data=False)
    tensor = next(t for t in model.graph.initializer if t.external_data)
    next(entry for entry in tensor.external_data if entry.key == "location").value = "x" * 5000
    external.write_bytes(model.SerializeToString())
    assert "is missing" in refused(external)


def test_linked_or_missing_weights_are_refused(external):
    data = data_of(external)
    elsewhere = Path(shutil.move(data, external.parent.parent / "elsewhere"))
    assert "is missing" in refused(external)
    data.symlink_to(elsewhere)
    assert "is a link" in refused(external)
    data.unlink()
    os.link(elsewhere, data)
    assert "is a link" in refused(external)


SMALL_MIB, LARGE_MIB = 4, 256
HELPERS = Path(__file__).parents[1] / "helpers"


def _doubled(path: Path, weights: bool) -> None:
    """Double 1 MiB, weights or pixels, five times in the graph, and add nothing of that to the first output."""
    model = onnx.load(path)
    helper, nodes, value = onnx.helper, [], "doubled"
    if weights:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((512, 512), np.float32), value))
    else:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([76, 1, 3, 24, 24]), "widely"))
        nodes.append(helper.make_node("Expand", ["pixel_values", "widely"], [value]))
    for i in range(5):
        nodes.append(helper.make_node("Concat", [value, value], [f"doubled_{i}"], axis=0))
        value = f"doubled_{i}"
    nodes.append(helper.make_node("ReduceSum", [value], ["total"], keepdims=0))
    last = next(node for node in model.graph.node if "last_hidden_state" in node.output)
    last.output[0] = "hidden"
    nodes += [
        helper.make_node("Mul", ["total", "nothing"], ["zero"]),
        helper.make_node("Add", ["hidden", "zero"], ["last_hidden_state"]),
    ]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((), np.float32), "nothing"))
    model.graph.node.extend(nodes)
    onnx.save(model, path)


@pytest.mark.parametrize("output", ["logits", "kept_ids", "last_hidden_state"])
def test_outputs_of_other_shapes_are_refused(copy, output):
    """Whatever the graph declares: a class without a name would be looked up, or a place off the grid drawn."""
    model = onnx.load(copy)
    node = next(node for node in model.graph.node if output in node.output)
    node.output[list(node.output).index(output)] = "before"
    model.graph.node.append(onnx.helper.make_node("Concat", ["before", "before"], [output], axis=1))
    next(value for value in model.graph.output if value.name == output).type.tensor_type.ClearField("shape")
    onnx.save(model, copy)
    with pytest.raises(ModelFileError, match="do not fit its metadata"):
        InferenceSession(copy).run(pixels(2), 0.7)


GROWING = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import numpy as np
from fuzz.watch import peak_mb, reset_peak
from pcae_core.errors import ModelFileError
from pcae_onnx.session import InferenceSession
from pcae_onnx.staging import data_files
pixels = np.zeros((2, 3, 24, 24), np.float32)
InferenceSession(Path(sys.argv[4]), threads=1).run(pixels, 0.7)
before = reset_peak()
session = InferenceSession(Path(sys.argv[1]), threads=1, memory_mib=int(sys.argv[3]) or None)
try:
    session.run(pixels, 0.7)
    print("ran", end=" ")
except ModelFileError as error:
    assert "raise memory_mib" in str(error), error
    print("refused", end=" ")
print(round(peak_mb() - before, 1))
"""


@pytest.mark.parametrize("weights", [False, True])
def test_a_graph_that_grows_gets_no_more_than_its_memory(copy, dynamic, weights):
    """In a process of its own, whose peak it shows: a run that doubles its input, and constants that double."""
    _doubled(copy, weights)

    def outcome(memory_mib: int) -> tuple[str, float, str]:
        command = [sys.executable, "-c", GROWING, str(copy), str(HELPERS), str(memory_mib), str(dynamic)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        said, grown = done.stdout.split()
        return said, float(grown), done.stderr

    said, grown, _ = outcome(0)
    assert said == "ran"
    assert 50 < grown < 200
    said, grown, errors = outcome(SMALL_MIB)
    assert (said, errors) == ("refused", "")
    assert grown < 25


def test_memory_is_each_session_s_own(copy, tmp_path):
    """A session keeps its limit when another with a higher one is loaded."""
    small = InferenceSession(copy, memory_mib=SMALL_MIB)
    before = small.run(pixels(20), 0.7)
    _doubled(Path(shutil.copy(copy, tmp_path / "grown.onnx")), weights=False)
    large, tight = (InferenceSession(tmp_path / "grown.onnx", memory_mib=mib) for mib in (LARGE_MIB, SMALL_MIB))
    np.testing.assert_allclose(large.run(pixels(2), 0.7).logits, before.logits[:2], atol=1e-5)
    with pytest.raises(ModelFileError, match="raise memory_mib"):
        tight.run(pixels(2), 0.7)
    np.testing.assert_array_equal(small.run(pixels(20), 0.7).logits, before.logits)
    InferenceSession(copy, memory_mib=2**40)
    for memory_mib in (0, 10**14):
        with pytest.raises(BackendError, match=f"memory_mib must be from 1 to {2**40}, not {memory_mib}"):
            InferenceSession(copy, memory_mib=memory_mib)


def test_images_too_large_for_the_memory_are_refused(tmp_path):
    config = CONFIG.model_copy(update={"image_size": 120, "patch_size": 20})
    exported(tmp_path, config, keep=0.7)
    with pytest.raises(ModelFileError, match="3 x 120 x 120, too large for runs of 1 MiB"):
        InferenceSession(tmp_path, memory_mib=1)
    InferenceSession(tmp_path, memory_mib=2)
