"""Pictures and pages: which tokens an encoder keeps, and what a run has done so far. Needs NumPy and Pillow only."""
