"""Data sets on disk: one module for each kind."""
