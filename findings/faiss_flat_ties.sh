#!/usr/bin/env bash
# faiss-cpu 1.15.1: five vectors, of which the last is a copy of the first; who is nearest to the first?
# Guess: the first itself, in both kinds of index. Seen: IndexFlatL2 returns the lower id of equal distances first,
# IndexFlatIP the higher id of equal products. So "drop the first neighbour, it is the image itself" drops the duplicate's.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet faiss-cpu==1.15.1 numpy==2.4.6
"$folder/env/bin/python" - <<'PY'
import faiss
import numpy as np

vectors = np.vstack([np.eye(4), np.eye(4)[:1]]).astype(np.float32)


def neighbours(index):
    index.add(vectors)
    return index.search(vectors[:1], 5)[1][0].tolist()


product, distance = neighbours(faiss.IndexFlatIP(4)), neighbours(faiss.IndexFlatL2(4))
print(f"faiss {faiss.__version__}: ids by inner product {product}, by distance {distance}")
assert product == [4, 0, 3, 2, 1] and distance == [0, 4, 1, 2, 3], "the behaviour has changed"
PY
