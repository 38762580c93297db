"""Pictures of the tokens that an encoder keeps, and pages about a run. This package needs only NumPy and Pillow."""
