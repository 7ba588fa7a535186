"""From WARC records to candidates: which records hold a page, what kind of page, and its text."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from resiliparse.parse.encoding import detect_mime

from bessemer.curate.extraction import Extracted, ExtractionFault, clean, decode, extract_page
from bessemer.curate.extraction.config import ExtractionConfig
from bessemer.formats.warc import WarcDamage, WarcRecord

PAGE_TYPES = frozenset({"response", "resource", "conversion", "revisit"})
"""Record types that stand for a page; requests, metadata and the like only describe one."""
HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
PLAIN_TYPES = frozenset({"text/plain", "text/markdown", "text/x-markdown"})
JSON_TYPE = "application/json"


@dataclass(frozen=True)
class Drop:
    """Why a record became no document: the first stage and rule that dropped it."""

    stage: str
    rule: str
    detail: str | None = None
    value: float | None = None
    bound: str | None = None
    threshold: float | None = None


@dataclass
class Candidate:
    """A record on its way to being a document; every one of them becomes a row of the ledger."""

    file: str
    offset: int
    id: str
    record_type: str | None = None
    url: str | None = None
    source: str | None = None
    content_type: str | None = None
    encoding: str | None = None
    fetched_at: str | None = None
    num_bytes: int | None = None
    title: str | None = None
    text: str = ""
    extractor: str | None = None
    """Which extractor made the text of an HTML page."""
    extractor_reason: str | None = None
    """Why that one, where there was a choice."""
    metadata: dict[str, Any] = field(default_factory=dict)
    is_page_capture: bool = False
    """Fetched from its URL, so that a second capture of the URL is the same page again."""
    drop: Drop | None = None


def is_page(item: WarcRecord | WarcDamage) -> bool:
    """Whether the ledger needs a row for it: pages, and stretches that no record could be read from."""
    return isinstance(item, WarcDamage) or item.type in PAGE_TYPES


def document_id(url: str, content: bytes) -> str:
    """BLAKE2b-128 of URL and content, in hexadecimal: the same page captured twice has one id."""
    digest = hashlib.blake2b(url.encode("utf-8", "replace") + b"\0", digest_size=16)
    digest.update(content)
    return digest.hexdigest()


def read_candidate(item: WarcRecord | WarcDamage, config: ExtractionConfig) -> Candidate:
    """All up to the extracted text. Never raises for what a record holds; `drop` says what is wrong."""
    if isinstance(item, WarcDamage):
        identity = document_id(f"{item.file}:{item.offset}", b"")
        damage = Drop("read", "read.damaged", f"{item.reason} ({item.lost_bytes} bytes lost)")
        return Candidate(item.file, item.offset, identity, drop=damage)
    body = item.payload(config.max_page_bytes + 1)
    description = item.description
    candidate = Candidate(
        file=item.file,
        offset=item.offset,
        id=document_id(item.uri, body.content),
        record_type=item.type,
        url=item.uri or None,
        source=_text_of(description, "source") or source_of(item.uri),
        title=_text_of(description, "title"),
        metadata=description,
        content_type=item.content_type or None,
        fetched_at=item.date or None,
        num_bytes=len(body.content),
        is_page_capture=item.type != "resource" and item.uri.startswith(("http://", "https://")),
    )
    media_type = _media_type(item, body.content)
    candidate.drop = _reason_not_to_read(item, media_type, len(body.content), config.max_page_bytes)
    if candidate.drop is not None:
        return candidate
    try:
        extracted = _extract(candidate, media_type, body.content, config)
    except ExtractionFault as fault:
        bound = "max" if fault.limit is not None else None
        candidate.drop = Drop("extract", fault.rule, fault.detail, fault.value, bound, fault.limit)
        return candidate
    candidate.text = extracted.text
    candidate.extractor, candidate.extractor_reason = extracted.extractor, extracted.reason
    candidate.title = extracted.title or candidate.title
    if extracted.notes:
        candidate.metadata = {**candidate.metadata, "extraction": extracted.notes}
    if not extracted.text:
        reason = body.fault or ("no text on the page" if body.content else "the record is empty")
        candidate.drop = Drop("extract", "extract.empty", reason)
    elif extracted.undecodable > config.max_undecodable:
        candidate.drop = Drop(
            "extract", "extract.undecodable", None, extracted.undecodable, "max", config.max_undecodable
        )
    return candidate


def source_of(url: str) -> str | None:
    """The host of a web address, else the scheme (`file`), else None."""
    try:
        parts = urlsplit(url)
        return parts.hostname or parts.scheme or None
    except ValueError:
        return None


def _text_of(description: dict[str, Any], name: str) -> str | None:
    """Take a text out of what the collector knew of the page, in normal form; None when it is none."""
    value = description.pop(name, None)
    return clean(value).text or None if isinstance(value, str) else None


def _media_type(record: WarcRecord, content: bytes) -> str:
    essence = record.content_type.partition(";")[0].strip().lower()
    if essence:
        return essence
    return detect_mime(content[:4096]) if content else ""


def _reason_not_to_read(
    record: WarcRecord, media_type: str, num_bytes: int, max_page_bytes: int
) -> Drop | None:
    if record.type == "revisit":
        return Drop("read", "read.revisit", "same content as an earlier capture")
    if record.type == "response" and record.http is None:
        return Drop("read", "read.no_http", "the response record holds no HTTP message")
    if record.status is not None and not 200 <= record.status < 300:
        return Drop("read", "read.http_status", f"HTTP status {record.status}", record.status, "max", 299)
    if num_bytes > max_page_bytes:
        return Drop("read", "read.page_bytes", None, num_bytes, "max", max_page_bytes)
    is_row = record.type == "resource" and media_type == JSON_TYPE
    if media_type not in HTML_TYPES and media_type not in PLAIN_TYPES and not is_row:
        return Drop("read", "read.content_type", f"{media_type or 'unknown type'} is not read as text")
    return None


def _extract(candidate: Candidate, media_type: str, content: bytes, config: ExtractionConfig) -> Extracted:
    text, candidate.encoding = decode(content, candidate.content_type or "")
    if media_type == JSON_TYPE:
        return _extract_row(candidate, text)
    if media_type in HTML_TYPES:
        return extract_page(text, config)
    return clean(text)


def _extract_row(candidate: Candidate, text: str) -> Extracted:
    """A row of a data set: `text`, and optionally `url`, `source`, `title`; the rest is metadata."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ExtractionFault("extract.json_row", f"not JSON: {error}") from error
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise ExtractionFault("extract.json_row", "not a JSON object with a string `text`")
    for name in ("url", "source"):
        if isinstance(row.get(name), str) and row[name]:
            setattr(candidate, name, clean(row.pop(name)).text)
    title = row.pop("title") if isinstance(row.get("title"), str) else None
    extracted = clean(row.pop("text"), title)
    candidate.metadata = candidate.metadata | row
    return extracted
