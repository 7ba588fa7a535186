"""Rows of data sets, whatever file they come from: columns under standard names, one JSON object a page.

The columns of text, id, URL, source, licence and date are renamed to `text`, `id`, `url`, `source`,
`licence` and `fetched_at`, so that whoever reads the pages need not know what the source called them.
Other columns stay as they are.
"""

import json
import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from typing import Any

import xxhash

from bessemer.collect.config import CollectConfig
from bessemer.collect.readers.pages import Fault, Page

ROW_TYPE = "application/json"
_LICENCE_COLUMNS = ("licence", "license")
_MAX_NAME_CHARS = 200
_MAX_URL_BYTES = 8192
_MAX_EPOCH_S = 253_402_300_799
"""The end of the year 9999."""


class RowReader:
    """Turns the rows of one file into pages, and notices ids that it has seen before.

    Holds 8 bytes of hash (about 70 bytes of memory) for each id.
    """

    def __init__(self, config: CollectConfig) -> None:
        self._config = config
        self._columns = {
            "text": config.text_column,
            "id": config.id_column or "id",
            "url": config.url_column,
            "source": config.source_column,
            "licence": config.licence_column,
            "fetched_at": config.date_column or "fetched_at",
        }
        self._seen: set[int] = set()

    def read(self, value: Any, number: int) -> Iterator[Page | Fault]:
        """The page of one row, after a fault if its id is not new; or a fault."""
        place = str(number)
        config = self._config
        if not isinstance(value, dict):
            yield Fault(place, f"bad row: expected an object, found {type(value).__name__}")
            return
        if not isinstance(value.get(config.text_column), str):
            yield Fault(place, f"no text: {_without_text(value, config.text_column)}")
            return
        row = self._standard(value)
        name = _name(row.get("id"))
        when = iso_date(row.get("fetched_at"))
        if when is not None:
            del row["fetched_at"]
        try:
            body = _to_json(row).encode("utf-8")
        except (UnicodeEncodeError, RecursionError) as error:
            is_nested = isinstance(error, RecursionError)
            yield Fault(place, "bad row: nested too deeply" if is_nested else _HALF_PAIR)
            return
        if len(body) > config.max_document_bytes:
            yield Fault(place, f"too long: a row of {len(body)} bytes")
            return
        if name is not None and self._is_repeated(name):
            yield Fault(place, f"repeated id: {name!r} was the id of an earlier row", is_kept=True)
            name = None
        url = row.get("url") if config.url_column else None
        yield Page(ROW_TYPE, body, name or place, _usable_url(url), when)

    def _is_repeated(self, name: str) -> bool:
        digest = xxhash.xxh3_64_intdigest(name.encode("utf-8"))
        if digest in self._seen:
            return True
        self._seen.add(digest)
        return False

    def _standard(self, row: dict[str, Any]) -> dict[str, Any]:
        standard = {name: row[column] for name, column in self._columns.items() if column in row}
        if not self._config.licence_column:
            found = [row[column] for column in _LICENCE_COLUMNS if isinstance(row.get(column), str)]
            standard |= {"licence": found[0]} if found else {}
        taken = {*self._columns.values(), *standard}
        if "licence" in standard and not self._config.licence_column:
            taken |= set(_LICENCE_COLUMNS)
        wanted = self._config.metadata_columns
        others = {
            key: value
            for key, value in row.items()
            if key not in taken and (wanted is None or key in wanted) and not isinstance(value, bytes)
        }
        return standard | others


_HALF_PAIR = "invalid Unicode: half of a surrogate pair"


def iso_date(value: Any) -> str | None:
    """A date of a row in WARC's form: ISO 8601, or seconds since 1970. None when it is neither."""
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    if isinstance(value, datetime):
        value = value if value.tzinfo else value.replace(tzinfo=UTC)
        try:
            return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")
        except OverflowError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    if not 0 <= value <= _MAX_EPOCH_S:
        return None
    return datetime.fromtimestamp(int(value), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def null(constant: str) -> None:
    """NaN and Infinity, which JSON does not have (RFC 8259, section 6)."""


def _name(value: Any) -> str | None:
    """An id that can stand in a URI, None when there is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < 10**18 else None
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME_CHARS:
        return None
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return None
    return value


def _usable_url(url: Any) -> str | None:
    """A URL that fits a WARC header."""
    if not isinstance(url, str) or not url.strip() or len(url) > _MAX_URL_BYTES // 4:
        return None
    return url


def _without_text(row: dict[str, Any], column: str) -> str:
    columns = ", ".join(sorted(map(str, row)))[:200]
    return f"column {column!r} holds no string (columns: {columns}); set text_column"


def _to_json(row: dict[str, Any]) -> str:
    try:
        return json.dumps(row, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:  # NaN or infinity
        finite = json.loads(json.dumps(row, default=str), parse_constant=null)
        return json.dumps(finite, ensure_ascii=False)
