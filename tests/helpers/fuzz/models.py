"""Exported models: bytes, metadata, and what a graph may say: nodes, attributes, weights, sizes, places of weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fuzz import checkpoints
from fuzz.kind import Kind, choose
from fuzz.mutation import json_text, mutated
from pcae.report.exported import DrawnExport
from pcae_core import parameters
from pcae_core.config import DataConfig
from pcae_onnx import export
from pcae_onnx.guard import OPERATORS
from pcae_onnx.session import InferenceSession

_DIMS = (0, 1, -1, 3, 7, 40, 2**62)
_NUMBERS = (0, 1, -1, 2, 7, 2**62)
_MEMORY_MIB = 4


class Models(Kind):
    def __init__(self, samples: Path) -> None:
        super().__init__(samples)
        config = checkpoints.MODEL.model_copy(update={"num_classes": 3})
        weights = parameters.initial_parameters(config, seed=0)
        path = export.export(config, DataConfig(), weights, samples, export.Options(keep=None)).path
        self.data = path.read_bytes()

    def good(self, folder: Path) -> None:
        (folder / "model.onnx").write_bytes(self.data)

    def write(self, rng: np.random.Generator, folder: Path) -> str:
        if rng.random() < 0.25:
            (folder / "model.onnx").write_bytes(mutated(rng, self.data))
            return "bytes"
        model = onnx.load_from_string(self.data)
        done = []
        for _ in range(int(rng.integers(1, 3))):
            change = choose(rng, _CHANGES)
            change(rng, model)
            done.append(change.__name__.strip("_"))
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        return ", ".join(done)

    def read(self, folder: Path) -> None:
        session = InferenceSession(folder, threads=1, memory_mib=_MEMORY_MIB)
        pixels = np.zeros((2, session.in_chans, session.image_size, session.image_size), np.float32)
        session.run(pixels, 0.7 if session.dynamic_keep else None)
        DrawnExport(folder / "model.onnx").stages(pixels)


def _metadata(rng: np.random.Generator, model: onnx.ModelProto) -> None:
    entry = choose(rng, model.metadata_props)
    try:
        entry.value = json_text(rng, json.loads(entry.value)).decode("utf-8", "replace")
    except (ValueError, RecursionError):  # what an earlier change left is no JSON, or nested too deeply
        entry.value = ""


def _operator(rng: np.random.Generator, model: onnx.ModelProto) -> None:
    choose(rng, model.graph.node).op_type = choose(rng, sorted(OPERATORS))


def _wiring(rng: np.random.Generator, model: onnx.ModelProto) -> None:
    node, other = choose(rng, model.graph.node), choose(rng, model.graph.node)
    names = [*other.output, *other.input, "", "pixel_values", "keep", "nowhere"]
    (node.input if rng.random() < 0.7 and node.input else node.output)[0] = choose(rng, names)


def _order(rng: np.random.Generator, model: onnx.ModelProto) -> None:
    node = choose(rng, model.graph.node)
    choose(rng, (lambda: model.graph.node.append(node), lambda: model.graph.node.remove(node)))()


def _attribute(rng: np.random.Generator, model: onnx.ModelProto) -> None:
    node = choose(rng, [node for node in model.graph.node if node.attribute])
    attribute = choose(rng, node.attribute)
    number = choose(rng, _NUMBERS)
    values = (
        number,
        float("nan"),
        [number],
        [number] * 5,
        [],
        "x",
        b"\xff",
        onnx.TensorProto(),
        [1.0],
        onnx.GraphProto(name="g"),
    )
    value = choose(rng, values)
    kind = onnx.AttributeProto.INTS if value == [] else None
    attribute.CopyFrom(helper.make_attribute(attribute.name, value, attr_type=kind))


def _initializer(rng: np.random.Generator, model: onnx.ModelProto) -> None:
    tensor = choose(rng, model.graph.initializer)
    what = rng.random()
    if what < 0.3:
        tensor.dims[:] = [choose(rng, _DIMS) for _ in range(int(rng.integers(0, 5)))]
    elif what < 0.5:
        tensor.data_type = int(choose(rng, (*range(25), 99)))
    elif what < 0.7:
        tensor.raw_data = mutated(rng, tensor.raw_data)
    elif what < 0.8:
        tensor.name = choose(rng, ("", "pixel_values", "keep", choose(rng, model.graph.initializer).name))
    else:
        _numbers(rng, tensor)


def _numbers(rng: np.random.Generator, tensor: TensorProto) -> None:
    """Shapes, axes and counts are whole numbers in initializers: the values that make operators large."""
    if tensor.data_type == TensorProto.INT64:
        count = len(tensor.raw_data) // 8
        tensor.raw_data = np.array([choose(rng, _DIMS) for _ in range(count)], np.int64).tobytes()


def _sizes(rng: np.random.Generator, model: onnx.ModelProto) -> None:
    whole = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT64]
    _numbers(rng, choose(rng, whole))


def _growth(rng: np.random.Generator, model: onnx.ModelProto) -> None:
    """What a node takes is doubled a few times before."""
    nodes = model.graph.node
    place = int(choose(rng, [i for i, node in enumerate(nodes) if node.input]))
    value = choose(rng, nodes[place].input)
    for i in range(int(choose(rng, (1, 2, 3)))):
        larger = f"{value}_{i}"
        nodes.insert(place + i, helper.make_node("Concat", [value, value], [larger], axis=0))
        value = larger
    taker = nodes[place + i + 1]
    taker.input[int(rng.integers(len(taker.input)))] = value


def _external(rng: np.random.Generator, model: onnx.ModelProto) -> None:
    tensor = choose(rng, model.graph.initializer)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    places = (
        "/etc/passwd",
        "../../x",
        "model.onnx",
        "",
        ".",
        "..",
        "/dev/null",
        "a/../model.onnx",
        "x\0y",
        "x" * 5000,
        "\n",
        "*/x/*",
    )
    for key, value in (
        ("location", choose(rng, places)),
        ("offset", str(choose(rng, _NUMBERS))),
        ("length", str(choose(rng, _NUMBERS))),
    ):
        if rng.random() < 0.9:
            tensor.external_data.add(key=key, value=value)


def _interface(rng: np.random.Generator, model: onnx.ModelProto) -> None:
    value = choose(rng, [*model.graph.input, *model.graph.output])
    kind = value.type.tensor_type
    what = rng.random()
    if what < 0.3:
        kind.elem_type = int(rng.integers(0, 25))
    elif what < 0.6 and kind.shape.dim:
        choose(rng, kind.shape.dim).dim_value = choose(rng, _DIMS)
    elif what < 0.8:
        value.type.CopyFrom(helper.make_sequence_type_proto(value.type))
    else:
        value.name = choose(rng, ("", "x", "keep", "logits"))


def _header(rng: np.random.Generator, model: onnx.ModelProto) -> None:
    model.ir_version = choose(rng, (0, 1, 3, 9, 99, 2**62))
    model.opset_import[0].version = choose(rng, (0, 1, 7, 13, 20, 21, 99, -1, 2**62))


def _nested(rng: np.random.Generator, model: onnx.ModelProto) -> None:
    graph = onnx.GraphProto(name="deep")
    for _ in range(int(choose(rng, (1, 20, 30)))):
        outer = onnx.GraphProto(name="outer")
        outer.node.add(op_type="If").attribute.append(helper.make_attribute("then_branch", graph))
        graph = outer
    choose(rng, model.graph.node).attribute.append(helper.make_attribute("then_branch", graph))


def _types(rng: np.random.Generator, model: onnx.ModelProto) -> None:
    """A type within a type within a type."""
    kind = onnx.TypeProto()
    inner = kind
    for _ in range(int(choose(rng, (2, 30, 45)))):
        inner = inner.sequence_type.elem_type
    inner.tensor_type.elem_type = 1
    choose(rng, (model.graph.value_info.add(name="x").type, model.graph.output[0].type)).CopyFrom(kind)


def _sparse(rng: np.random.Generator, model: onnx.ModelProto) -> None:
    """Well formed: they are refused whatever they hold."""
    tensor = model.graph.sparse_initializer.add()
    tensor.dims[:] = [choose(rng, (1, 2, 7)), choose(rng, (1, 2, 7))]
    tensor.values.CopyFrom(helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0]))
    tensor.indices.CopyFrom(helper.make_tensor("i", TensorProto.INT64, [1], [0]))


def _many(rng: np.random.Generator, model: onnx.ModelProto) -> None:
    """Three nodes, each of which doubles what the one before gives: from 1 to 8 MiB, where a run may take 4."""
    name = "spread"
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 2048, 8, 8], np.int64), "widely"))
    model.graph.node.append(helper.make_node("Expand", ["pixel_values", "widely"], [name]))
    for i in range(3):
        model.graph.node.append(helper.make_node("Concat", [name, name], [f"double{i}"], axis=0))
        name = f"double{i}"
    if rng.random() < 0.7:
        model.graph.node.append(helper.make_node("Identity", [name], ["logits"]))


_CHANGES = (
    _metadata, _metadata, _operator, _wiring, _order, _attribute, _attribute, _initializer, _initializer, _sizes,
    _sizes, _growth, _external, _interface, _header, _nested, _types, _sparse, _many,
)  # fmt: skip
