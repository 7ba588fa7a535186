"""Where an artifact comes from: the chain of manifests, each link and every file of it checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bessemer.errors import DamagedArtifact
from bessemer.runner.manifest import Artifact, open_artifact

Link = Literal["matches", "changed since", "damaged", "missing"]
_NOTES: dict[Link, str] = {
    "changed since": "changed since: redo what was made from it",
    "damaged": "damaged: run again with --from this stage",
    "missing": "missing: run again to make it",
}


@dataclass(frozen=True)
class Node:
    """An artifact in a lineage tree, and how it agrees with what its consumer recorded."""

    stage: str
    kind: str
    recorded_digest: str
    link: Link
    inputs: tuple["Node", ...] = ()
    is_repeat: bool = False
    """Already shown above with its inputs, which are left out here."""

    @property
    def is_sound(self) -> bool:
        """Whether this and every link below it matches."""
        return self.link == "matches" and all(node.is_sound for node in self.inputs)

    def to_json(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "kind": self.kind,
            "digest": self.recorded_digest,
            "link": self.link,
            "is_repeat": self.is_repeat,
            "inputs": [node.to_json() for node in self.inputs],
        }


def trace(artifact: Artifact, artifacts: Mapping[str, Artifact]) -> Node:
    """The lineage of an artifact among those of its run (by stage name). Hashes every file on the way."""
    return _trace(artifact.stage, artifact.kind, artifact.manifest.digest, artifacts, set())


def _trace(
    stage: str, kind: str, recorded_digest: str, artifacts: Mapping[str, Artifact], shown: set[str]
) -> Node:
    if stage not in artifacts:
        return Node(stage, kind, recorded_digest, "missing")
    manifest = artifacts[stage].manifest
    link: Link = "matches" if manifest.digest == recorded_digest else "changed since"
    if link == "matches" and stage not in shown and not _is_intact(artifacts[stage]):
        link = "damaged"
    if stage in shown:
        return Node(stage, kind, recorded_digest, link, is_repeat=bool(manifest.inputs))
    shown.add(stage)
    inputs = [
        _trace(name, input_kind, digest, artifacts, shown)
        for input_kind, names in manifest.input_stages.items()
        for name, digest in zip(names, manifest.inputs[input_kind], strict=True)
    ]
    return Node(stage, kind, recorded_digest, link, tuple(inputs))


def _is_intact(artifact: Artifact) -> bool:
    try:
        open_artifact(artifact.folder)
    except DamagedArtifact:
        return False
    return True


def describe_lineage(node: Node) -> str:
    """The tree as text, with short digests."""
    return "\n".join(_lines(node, "", ""))


def _lines(node: Node, first: str, rest: str) -> list[str]:
    note = "" if node.link == "matches" else f"  ← {_NOTES[node.link]}"
    repeat = "  (see above)" if node.is_repeat else ""
    lines = [f"{first}{node.stage}  {node.kind}  {node.recorded_digest[:12]}{note}{repeat}"]
    for index, child in enumerate(node.inputs):
        is_last = index == len(node.inputs) - 1
        branch, below = ("└─ ", "   ") if is_last else ("├─ ", "│  ")
        lines += _lines(child, rest + branch, rest + below)
    return lines
