#!/usr/bin/env bash
# Hugging Face datasets 5.2.0, load_dataset("imagefolder"): class folders a and b, and one picture beside them.
# Guess: labels a and b, and no label for the picture beside them. Seen: no label column at all, without a warning.
# Source: datasets/packaged_modules/folder_based_builder infers labels only where all files lie equally deep.
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
for name in ("a", "b"):
    Path("photos", name).mkdir(parents=True)
    for i in range(3):
        Image.new("RGB", (8, 8), (50 * i, 0, 0)).save(f"photos/{name}/{i}.png")


def columns(cache):
    return sorted(datasets.load_dataset("imagefolder", data_dir="photos", cache_dir=cache)["train"].features)


before = columns("before")
Image.new("RGB", (8, 8)).save("photos/stray.png")
after = columns("after")
print(f"datasets {datasets.__version__}: columns {before}; with one picture beside the class folders {after}")
assert before == ["image", "label"] and after == ["image"], "the behaviour has changed"
PY
