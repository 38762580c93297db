"""The public API as text, a line a name: `python tests/helpers/public_api.py` prints what tests/public_api.txt records.

Read from the sources by griffe, so that no framework is needed and defaults stand as they are written.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import griffe

ROOT = Path(__file__).parents[2]
SOURCES = [ROOT, ROOT / "backends", ROOT / "conformance"]
RECORDED = ROOT / "tests" / "public_api.txt"
# `pcae_core` lists its names in __all__, and `pcae` has them too; of the backends, what docs/ tells users to import.
NAMES = {
    "pcae": ("Encoder", "evaluate", "finetune", "pretrain"),
    "pcae_core": None,
    "pcae_torch": ("Encoder", "ops.patchify", "ops.restore_grid"),
    "pcae_mindspore": ("Encoder",),
    "pcae_onnx": ("session.InferenceSession", "session.Outputs", "session.Prediction", "session.ClassScore"),
}


def lines() -> list[str]:
    """Every public name with its signature, its type, or its base classes; sorted."""
    found: list[str] = []
    loader = griffe.GriffeLoader(search_paths=SOURCES, allow_inspection=False)
    packages = {package: loader.load(package, try_relative_path=False) for package in NAMES}
    for package, names in NAMES.items():
        for name in names or [str(export) for export in packages[package].exports or ()]:
            found += _describe(_resolve(packages[package], name), f"{package}.{name}")
    return sorted(set(found))


def _resolve(package: griffe.Object, name: str) -> griffe.Object:
    """A name may be imported lazily: under TYPE_CHECKING, which griffe reads as any import."""
    member = package[name]
    return member.final_target if member.is_alias else member


def _describe(thing: griffe.Object, name: str) -> Iterator[str]:
    if isinstance(thing, griffe.Function):
        yield f"{name}{_signature(thing)}"
    elif isinstance(thing, griffe.Attribute):
        annotation = f": {thing.annotation}" if thing.annotation else ""
        default = f" = {thing.value}" if thing.value and "class-attribute" in thing.labels else ""
        yield f"{name}{annotation}{default}"
    else:
        if isinstance(thing, griffe.Class):
            yield f"class {name}({', '.join(map(str, thing.bases))})"
        for member in thing.members.values():
            if not member.is_alias and (member.name == "__init__" or not member.name.startswith("_")):
                yield from _describe(member, f"{name}.{member.name}")


def _signature(function: griffe.Function) -> str:
    parameters = []
    for p in function.parameters:
        stars = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}.get(p.kind, "")
        default = f" = {p.default}" if p.default is not None and not stars else ""
        parameters.append(f"{stars}{p.name}" + (f": {p.annotation}" if p.annotation else "") + default)
    return f"({', '.join(parameters)}) -> {function.returns}"


if __name__ == "__main__":
    print("\n".join(lines()))
