#!/usr/bin/env bash
# MindSpore 2.10.0 on CPUs: softmax of a row that is wholly masked, minus infinity everywhere.
# Guess: NaN, as the formula, NumPy and PyTorch give. Seen: zeros, a row that sums to 0. An attention whose mask leaves nothing
# gives finite numbers here and NaN in PyTorch, so a mistake in a mask shows in one of the two alone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet mindspore==2.10.0 numpy==1.26.4 'ml_dtypes==0.5.4'
cd "$folder"
env/bin/python - 2>/dev/null <<'PY'
import mindspore
import numpy as np
from mindspore import ops

row = ops.softmax(mindspore.Tensor(np.full(3, -np.inf, np.float32))).asnumpy()
print(f"mindspore {mindspore.__version__}: softmax of three times minus infinity is {row}")
assert (row == 0).all(), "the behaviour has changed"
PY
