#!/usr/bin/env bash
# MindSpore 2.10.0: layers and functions with PyTorch's names, as they come.
# Guess: the same defaults. Seen: nn.GELU is the tanh approximation while ops.gelu is exact, nn.LayerNorm's epsilon is 1e-7
# and not 1e-5, Tensor.std divides by n and not by n - 1. Each is in its own docstring; a ported model differs in all three.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet mindspore==2.10.0 numpy==1.26.4 'ml_dtypes==0.5.4'
cd "$folder"
env/bin/python - 2>/dev/null <<'PY'
import math

import mindspore
import numpy as np
from mindspore import nn, ops

x = np.linspace(-3, 3, 7, dtype=np.float32)
exact = np.array([v / 2 * (1 + math.erf(v / math.sqrt(2))) for v in x])
layer = np.abs(nn.GELU()(mindspore.Tensor(x)).asnumpy() - exact).max()
function = np.abs(ops.gelu(mindspore.Tensor(x)).asnumpy() - exact).max()
epsilon, std = nn.LayerNorm((7,)).epsilon, float(mindspore.Tensor(x).std().asnumpy())
print(
    f"mindspore {mindspore.__version__}: nn.GELU {layer:.1e} and ops.gelu {function:.1e} from exact, "
    f"LayerNorm epsilon {epsilon:g}, std of -3 ... 3 {std:g} (divided by n - 1: {x.std(ddof=1):.4f})"
)
assert layer > 1e-4 > function and epsilon == 1e-7 and abs(std - 2) < 1e-6, "the behaviour has changed"
PY
