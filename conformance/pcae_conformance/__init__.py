"""The conformance suite compares any backend with the NumPy reference.

There are two ways to run the same checks:

    pcae conformance NAME
    pytest -p pcae_conformance.plugin --pyargs pcae_conformance --pcae-backend NAME

docs/writing-a-backend.md has more for authors of backends.
"""

from __future__ import annotations
