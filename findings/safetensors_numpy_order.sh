#!/usr/bin/env bash
# safetensors 0.8.0, safetensors.numpy: an array in Fortran order, as a transposition gives it, is saved and read back.
# Guess: the same values (so it was in 0.7.0). Seen: another array of the same shape, without a word: the bytes are written in
# the order of the memory. np.ascontiguousarray before saving helps. Source: issue 825 of safetensors, open.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet safetensors==0.8.0 numpy==2.4.6
"$folder/env/bin/python" - <<'PY'
import numpy as np
import safetensors
from safetensors.numpy import load, save

written = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
found = load(save({"x": written}))["x"]
print(f"safetensors {safetensors.__version__}: {written.tolist()} is read back as {found.tolist()}")
assert found.shape == written.shape and found.tolist() == [[0, 3, 1], [4, 2, 5]], "the behaviour has changed"
PY
