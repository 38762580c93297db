"""The checks, one module a group; `pcae_conformance.check.all_checks` loads them."""
