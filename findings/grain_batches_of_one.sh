#!/usr/bin/env bash
# grain 0.2.18: MapDataset.range(6).repeat() in batches, of which the first four are taken by a slice.
# Guess: four batches for any batch size. Seen: for two and more; in batches of one len() and slices raise OverflowError. The
# number of batches is computed by a division of floats, which rounds the endless 2**63 - 1 elements up to 2**63.
# Source: grain/_src/python/dataset/transformations/batch.py.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet grain==0.2.18 numpy==2.4.6
"$folder/env/bin/python" - 2>/dev/null <<'PY'
import grain


def first_four(size):
    try:
        return [batch.tolist() for batch in grain.MapDataset.range(6).repeat().batch(size)[0:4]]
    except OverflowError as error:
        return f"OverflowError: {error}"


one, two = first_four(1), first_four(2)
print(f"grain {grain.__version__}: batches of two {two}; batches of one {one}")
assert len(two) == 4 and str(one).startswith("OverflowError"), "the behaviour has changed"
PY
