#!/usr/bin/env bash
# faiss-cpu 1.15.1, IndexFlatIP: four vectors and three of NaN, as a model that overflowed gives them; seven neighbours.
# Guess: an error, or the rows of NaN at the end. Seen: all seven rows count in ntotal, the search finds four, and ids of
# -1 with the lowest float32 stand for the others. Whoever indexes names with -1 gets the last name.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet faiss-cpu==1.15.1 numpy==2.4.6
"$folder/env/bin/python" - <<'PY'
import faiss
import numpy as np

index = faiss.IndexFlatIP(4)
index.add(np.eye(4, dtype=np.float32))
index.add(np.full((3, 4), np.nan, np.float32))
scores, ids = index.search(np.eye(4, dtype=np.float32)[:1], 7)
print(f"faiss {faiss.__version__}: {index.ntotal} rows, ids {ids[0].tolist()}, last score {scores[0, -1]:g}")
assert index.ntotal == 7 and ids[0, 4:].tolist() == [-1, -1, -1], "the behaviour has changed"
assert scores[0, -1] == np.finfo(np.float32).min, "the behaviour has changed"
PY
