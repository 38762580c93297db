#!/usr/bin/env bash
# Pillow 13.0.0 (libtiff 4.7.2): a 16-bit grey TIFF saved with tag 281, MaxSampleValue, of 4095, as cameras of 12 bits say it.
# Guess: the tag is in the file, whatever the compression. Seen: uncompressed it is; with tiff_lzw, tiff_adobe_deflate or
# packbits the file says 1, while the pixels are right. Whoever scales by the tag makes everything white.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet pillow==13.0.0 numpy==2.4.6
"$folder/env/bin/python" - <<'PY'
import io

import numpy as np
import PIL
from PIL import Image


def written(**options):
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(file, "TIFF", tiffinfo={281: 4095}, **options)
    image = Image.open(file)
    assert int(np.asarray(image).max()) == 4095
    return image.tag_v2[281]


plain, packed = written(), [written(compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits")]
print(f"Pillow {PIL.__version__}: MaxSampleValue 4095 is written as {plain}; compressed as {packed}")
assert plain == (4095,) and packed == [(1,)] * 3, "the behaviour has changed"
PY
