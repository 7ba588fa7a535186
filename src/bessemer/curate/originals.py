"""A record's extracted text before the edits, read again from the page's WARC record and checked.

The ledger keeps edits as spans into the extracted text; documents hold what the edits left. Where the
pages are still there, extraction gives the text again, for the same pages, config and program.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bessemer.curate.config import CurateConfig
from bessemer.curate.edits import Edit, remove_spans
from bessemer.curate.records import Candidate, read_candidate
from bessemer.curate.whereabouts import curate_config, sources_of
from bessemer.formats.warc import WarcDamage, WarcRecord, read_warc
from bessemer.runner.manifest import Artifact

_MAX_RECORDS_READ = 10_000
"""Records of one gzip member that are looked through for the wanted one: they share their offset."""


@dataclass(frozen=True)
class Original:
    """The extracted text of a record, or why it cannot be told."""

    text: str | None = None
    problem: str | None = None


class Originals:
    """Reads extracted texts of an artifact's records again. Cheap to make; each text costs one extraction."""

    def __init__(self, folder: Path) -> None:
        self._pages: Sequence[Artifact] = sources_of(folder, "pages")
        self._config: CurateConfig | None = None
        self._fault: str | None = None
        # Settings that this version does not know are left out: every text is checked against the ledger.
        known = {
            name: value for name, value in curate_config(folder).items() if name in CurateConfig.model_fields
        }
        try:
            self._config = CurateConfig.model_validate(known)
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"]))
            self._fault = f"made by another version: this one does not understand the setting {place}"

    def read(self, row: Mapping[str, Any]) -> Original:
        """The text of a row with the columns of the ledger, checked against them."""
        if not self._pages:
            return Original(problem="the pages that this run read are not in its folder any more")
        if self._config is None:
            return Original(problem=self._fault)
        path = self._find(row["file"])
        if path is None:
            return Original(problem=f"{row['file']} is not among the pages of the run")
        candidate = self._candidate(path, row)
        if candidate is None:
            return Original(problem=f"{row['file']} holds no record of this id at offset {row['offset']}")
        is_equal = len(candidate.text) == row["num_characters"]
        if not is_equal or not edited_text(candidate.text, row["edits"] or []).startswith(
            row["excerpt"] or ""
        ):
            return Original(
                problem="extraction gives another text now: the program has changed since the run was made"
            )
        return Original(text=candidate.text)

    def _find(self, name: str) -> Path | None:
        for artifact in self._pages:
            folder = artifact.folder.resolve()
            for path in (folder / name, *sorted(folder.rglob(Path(name).name))):
                if path.is_file() and path.resolve().is_relative_to(folder):
                    return path
        return None

    def _candidate(self, path: Path, row: Mapping[str, Any]) -> Candidate | None:
        for item in islice(read_warc(path, row["offset"]), _MAX_RECORDS_READ):
            if item.offset > row["offset"]:
                return None
            candidate = self._extract(item)
            if candidate.id == row["id"]:
                return candidate
        return None

    def _extract(self, item: WarcRecord | WarcDamage) -> Candidate:
        config = self._config
        assert config is not None
        return read_candidate(item, config)


def removed_texts(text: str, edits: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each edit took out of the extracted text."""
    return [text[edit["start"] : edit["end"]] for edit in edits]


def edited_text(text: str, edits: Sequence[Mapping[str, Any]]) -> str:
    """The extracted text after the edits, as the document holds it."""
    spans = [Edit(edit["rule"], edit["start"], edit["end"]) for edit in edits]
    return remove_spans(text, spans).strip("\n") if spans else text
