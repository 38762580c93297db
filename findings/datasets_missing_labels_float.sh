#!/usr/bin/env bash
# Hugging Face datasets 5.2.0: a ClassLabel column of which one entry is missing, read in the format "numpy".
# Guess: integers with -1, or an error. Seen: float32 with NaN, so a cast to integers gives an arbitrary class for the missing
# label, and labels beyond 2**24 are rounded. Without a format the entry is None.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet datasets==5.2.0 numpy==2.4.6
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" env/bin/python - <<'PY'
import datasets
import numpy as np

datasets.disable_progress_bars()
made = datasets.Dataset.from_dict({"label": [0, None, 1]})
made = made.cast_column("label", datasets.ClassLabel(names=["a", "b"]))
plain, array = made["label"][:], made.with_format("numpy")["label"][:]
print(f"datasets {datasets.__version__}: labels {plain} are {array} of {array.dtype} in the format numpy")
assert plain == [0, None, 1] and array.dtype == np.float32 and np.isnan(array[1]), "the behaviour has changed"
PY
