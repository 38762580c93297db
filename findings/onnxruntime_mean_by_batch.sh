#!/usr/bin/env bash
# ONNX Runtime 1.32.0 on CPUs, float32: the mean over the tokens (axis 1) of 8 x 65 x 48 values, together and one by one.
# Guess: a row's mean does not depend on the rows beside it. Seen: ReduceMean gives other last bits, up to 1e-7, for an image
# alone than for the same image in a batch; whatever is decided by it (a tie, an order) can differ. The same mean as a
# GlobalAveragePool after a Transpose is the same bits.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
"$folder/env/bin/python" - <<'PY'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper

x = np.random.default_rng(0).normal(size=(8, 65, 48)).astype(np.float32)


def changed(nodes, constants=()):
    """How many of the eight images get other bits alone."""
    ends = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", ["b", 65, 48]), ("y", None)))
    graph = helper.make_graph(nodes, "mean", [next(ends)], [next(ends)], list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    together = session.run(None, {"x": x})[0]
    return sum(not np.array_equal(session.run(None, {"x": x[i : i + 1]})[0][0], together[i]) for i in range(8))


axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
reduced = changed([helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0)], [axes])
turn = helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1])
pooled = changed([turn, helper.make_node("GlobalAveragePool", ["t"], ["y"])])
print(f"onnxruntime {onnxruntime.__version__}: of 8 images {reduced} get another mean alone; by pooling {pooled}")
assert reduced > 0 and pooled == 0, "the behaviour has changed"
PY
