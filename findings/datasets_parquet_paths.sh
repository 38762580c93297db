#!/usr/bin/env bash
# Hugging Face datasets 5.2.0: a data set of image files, written by save_to_disk and by to_parquet.
# Guess: both hold the content of the files. Seen: save_to_disk embeds it; to_parquet writes the paths alone, so the
# Parquet file is of no use on another machine, which nothing says.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet datasets==5.2.0 pillow==13.0.0 pyarrow==25.0.1
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" env/bin/python - <<'PY'
import os

import datasets
import pyarrow.parquet
from PIL import Image

datasets.disable_progress_bars()
Image.new("RGB", (8, 8)).save("a.png")
made = datasets.Dataset.from_dict({"image": ["a.png"]}).cast_column("image", datasets.Image())
made.save_to_disk("folder")
made.to_parquet("file.parquet")
os.remove("a.png")
(row,) = pyarrow.parquet.read_table("file.parquet")["image"].to_pylist()
size = datasets.load_from_disk("folder")[0]["image"].size
print(f"datasets {datasets.__version__}: save_to_disk gives {size} after the file is gone; to_parquet wrote {row}")
assert size == (8, 8) and row == {"bytes": None, "path": "a.png"}, "the behaviour has changed"
PY
