#!/usr/bin/env bash
# tritonclient 2.73.0: an FP32 input that holds NaN and infinity, sent as JSON (binary_data=False).
# Guess: the client refuses it, since JSON has no such numbers. Seen: it writes NaN and Infinity bare, so a server with a
# strict parser answers that the request is no JSON, far from the pixel that is NaN. As bytes (the default) they pass.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet 'tritonclient[http]==2.73.0' numpy==2.4.6
"$folder/env/bin/python" - <<'PY'
import json
from importlib.metadata import version

import numpy as np
import tritonclient.http as client


def refuse(name):
    raise ValueError(f"{name} is no JSON")


tensor = client.InferInput("x", [2], "FP32")
tensor.set_data_from_numpy(np.array([np.nan, np.inf], np.float32), binary_data=False)
body, _ = client.InferenceServerClient.generate_request_body([tensor])
try:
    json.loads(body, parse_constant=refuse)
    seen = "JSON"
except ValueError as error:
    seen = str(error)
print(f"tritonclient {version('tritonclient')}: {body.decode()} ({seen})")
assert seen == "NaN is no JSON", "the behaviour has changed"
PY
