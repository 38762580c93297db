#!/usr/bin/env bash
# Hugging Face datasets 5.2.0, feature Image: an array (4, 4, 3) of int64 whose values are 300.
# Guess: an error, or 255. Seen: a warning that the dtype is made smaller, and pixels of 300 - 256 = 44. A grey array
# (4, 4) of the same values stays 300.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet datasets==5.2.0 pillow==13.0.0 numpy==2.4.6
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" env/bin/python -W ignore - <<'PY'
import datasets
import numpy as np

features = datasets.Features({"image": datasets.Image()})


def brightest(shape):
    made = datasets.Dataset.from_dict({"image": [np.full(shape, 300, np.int64)]}, features=features)
    return int(np.asarray(made[0]["image"]).max())


colour, grey = brightest((4, 4, 3)), brightest((4, 4))
print(f"datasets {datasets.__version__}: pixels of 300 come back as {colour} in colour and as {grey} in grey")
assert (colour, grey) == (44, 300), "the behaviour has changed"
PY
