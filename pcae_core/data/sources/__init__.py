"""Data sets on disk: one module a kind."""
