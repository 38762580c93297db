#!/usr/bin/env bash
# transformers 5.24.0: the names of a ViTModel's tensors, in memory and in the file that save_pretrained writes.
# Guess: the same names. Seen: state_dict() says layers.0.attention.q_proj.weight, the file
# encoder.layer.0.attention.attention.query.weight. So torch.save(model.state_dict()) gives a file that a reader of hub files
# does not know, and the reverse; from_pretrained takes both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0 safetensors==0.8.0 numpy==2.4.6
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" env/bin/python - 2>/dev/null <<'PY'
import transformers
from safetensors import safe_open

config = transformers.ViTConfig(
    hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4
)
model = transformers.ViTModel(config)
model.save_pretrained("saved")
with safe_open("saved/model.safetensors", "numpy") as file:
    stored = set(file.keys())
memory = set(model.state_dict())
pair = ("layers.0.attention.q_proj.weight", "encoder.layer.0.attention.attention.query.weight")
print(f"transformers {transformers.__version__}: {len(memory - stored)} of {len(memory)} names differ, as {' and '.join(pair)}")
assert pair[0] in memory - stored and pair[1] in stored - memory, "the behaviour has changed"
PY
