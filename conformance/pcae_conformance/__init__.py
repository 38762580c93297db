"""The conformance suite: holds any backend, a stranger's too, to the NumPy reference.

Two ways in, the same checks:

    pcae conformance NAME
    pytest -p pcae_conformance.plugin --pyargs pcae_conformance --pcae-backend NAME

docs/writing-a-backend.md tells authors of backends more.
"""

from __future__ import annotations
