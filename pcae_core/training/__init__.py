"""The loops around a backend's step: pre-training and evaluation."""
