"""An ONNX graph under construction: nodes, small constants, and weights that are read when the file is written.

It has only operators of the standard domain. Opset and IR version are pinned, because runtimes do not load the newest
ones that `onnx` writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

IR_VERSIONS = {20: 9, 23: 11}
"""Opset -> IR version of the ONNX release that introduced the opset."""
Dim = int | str


def onnx_dtype(name: str) -> int:
    """ONNX's number of a dtype, by NumPy's name."""
    return helper.np_dtype_to_tensor_dtype(np.dtype(name))


@dataclass(frozen=True)
class Weight:
    """A large initializer.

    Attributes:
        shape, dtype: shape and dtype of the values, by NumPy's name.
        read: function that loads the values, so that only one weight at a time is in memory.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], NDArray[Any]]


class Graph:
    """A graph under construction. `add` adds a node and names its output.

    Attributes:
        opset: 20 or 23.
        dtype: dtype of activations and weights, by NumPy's name.
        weights: weights in the order in which they were added.
    """

    def __init__(self, opset: int = 23, dtype: str = "float32") -> None:
        self.opset, self.dtype = opset, dtype
        self.weights: list[Weight] = []
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._initializers: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, dtype: str, shape: Sequence[Dim], default: NDArray[Any] | None = None) -> str:
        """Declare an input. `default` makes it optional."""
        self._inputs.append(helper.make_tensor_value_info(name, onnx_dtype(dtype), shape))
        if default is not None:
            self._initializers.append(numpy_helper.from_array(default, name))
        return name

    def output(self, value: str, name: str, dtype: str | None = None, shape: Sequence[Dim] | None = None) -> None:
        """Declare `value` as the output `name`. Runtimes infer dtype and shape if they are not given."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"output_{name}"))
        if dtype is None:
            self._outputs.append(onnx.ValueInfoProto(name=name))
        else:
            self._outputs.append(helper.make_tensor_value_info(name, onnx_dtype(dtype), shape))

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output, and return the output's name."""
        return self.add_many(op, 1, *inputs, **attributes)[0]

    def add_many(self, op: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node with `count` outputs, and return their names."""
        name = f"{op}_{len(self._nodes)}"
        outputs = [name] if count == 1 else [f"{name}_{i}" for i in range(count)]
        self._nodes.append(helper.make_node(op, list(inputs), outputs, name=name, **attributes))
        return outputs

    def rename(self, value: str, name: str) -> str:
        """Give the output of a node a fixed name, and return it."""
        for node in self._nodes:
            for names in (node.input, node.output):
                for i, found in enumerate(names):
                    if found == value:
                        names[i] = name
        return name

    def constant(self, value: Any, dtype: str) -> str:
        """Add a small constant. Equal constants are stored once."""
        array = np.asarray(value, dtype=dtype)
        key = (dtype, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = f"constant_{len(self._constants)}"
            self._initializers.append(numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def ints(self, *values: int) -> str:
        """Add an int64 vector."""
        return self.constant(list(values), "int64")

    def weight(self, name: str, shape: tuple[int, ...], read: Callable[[], NDArray[Any]]) -> str:
        """Add a weight in the graph's dtype. `read` may return another floating dtype."""
        dtype = self.dtype
        self.weights.append(Weight(name, shape, dtype, lambda: read().astype(dtype, copy=False)))
        return name

    def cast(self, value: str, dtype: str) -> str:
        """Cast to a dtype, by NumPy's name."""
        return self.add("Cast", value, to=onnx_dtype(dtype))

    def proto(self, name: str, metadata: dict[str, str]) -> onnx.ModelProto:
        """The model without its weights, which `writer` adds."""
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._initializers)
        model = helper.make_model(
            graph,
            producer_name="pcae",
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=IR_VERSIONS[self.opset],
        )
        helper.set_model_props(model, metadata)
        return model
