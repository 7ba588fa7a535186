"""Which finished artifacts are no longer what the run's recipe and their inputs would give."""

from collections.abc import Mapping
from typing import Any

from bessemer.config import deciding
from bessemer.runner.manifest import Manifest

_OWN_KEYS = ("name", "from")
"""Options of a stage that are not part of its config."""


def stale_reasons(
    options: Mapping[str, Mapping[str, Any]], manifests: Mapping[str, Manifest]
) -> dict[str, str]:
    """Stage → why its artifact is out of date; stages that are up to date are not in it.

    `options` are the stages of the resolved recipe in its order, `manifests` those of the finished ones.
    From digests alone: nothing is hashed.
    """
    stale: dict[str, str] = {}
    for stage, given in options.items():
        if stage in manifests:
            reason = _reason(given, manifests[stage], manifests, stale)
            if reason is not None:
                stale[stage] = reason
    return stale


def _reason(
    options: Mapping[str, Any],
    manifest: Manifest,
    manifests: Mapping[str, Manifest],
    stale: Mapping[str, str],
) -> str | None:
    if deciding({key: value for key, value in options.items() if key not in _OWN_KEYS}) != manifest.config:
        return "the recipe has changed since"
    for kind, names in manifest.input_stages.items():
        for name, digest in zip(names, manifest.inputs[kind], strict=True):
            if name not in manifests:
                return f"made from {name!r}, which is gone"
            if manifests[name].digest != digest:
                return f"made from an earlier {name!r}"
            if name in stale:
                return f"made from {name!r}, which is out of date"
    return None
