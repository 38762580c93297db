"""Files: written whole or not at all, checked when read. Checkpoints and encoders; tensors, manifests, archives."""
