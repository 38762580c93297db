#!/usr/bin/env bash
# Hugging Face datasets 5.2.0, load_dataset("imagefolder"): three class folders, cat, test and valid, three pictures each.
# Guess: three classes of nine pictures. Seen: "test" and "valid" are taken for splits, there is no train split, and the
# three pictures of "cat" are in none, without a warning. The labels that remain are named after the splits.
# Source: the search for split names in datasets/data_files.py comes before the search for classes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet datasets==5.2.0 pillow==13.0.0
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" env/bin/python - <<'PY'
from pathlib import Path

import datasets
from PIL import Image

datasets.disable_progress_bars()
for name in ("cat", "test", "valid"):
    Path("photos", name).mkdir(parents=True)
    for i in range(3):
        Image.new("RGB", (8, 8), (50 * i, 0, 0)).save(f"photos/{name}/{i}.png")
found = datasets.load_dataset("imagefolder", data_dir="photos")
counts = {split: len(rows) for split, rows in found.items()}
names = found["test"].features["label"].names
print(f"datasets {datasets.__version__}: 9 pictures in cat, test and valid give {counts}, classes {names}")
assert counts == {"validation": 3, "test": 3} and names == ["test", "valid"], "the behaviour has changed"
PY
