"""Single records of a crawl by byte range: fetched, verified, and copied byte for byte into the archive."""

import json
import zlib
from dataclasses import asdict
from pathlib import Path

from bessemer.collect.common_crawl.config import CommonCrawlConfig
from bessemer.collect.common_crawl.index import Capture, Unfound, find_captures
from bessemer.collect.config import CollectConfig
from bessemer.collect.failures import FailureLog
from bessemer.collect.transfer import Refused, Transfer
from bessemer.collect.verification import payload_fits, wrong_digest
from bessemer.errors import BessemerError
from bessemer.formats.warc import MAX_BLOCK_BYTES, WarcDamage, WarcRecord, read_warc
from bessemer.formats.warc_writer import WarcHead, WarcPosition, WarcWriter
from bessemer.runner.context import StageContext
from bessemer.runner.files import write_atomically
from bessemer.runner.manifest import digest_of_json

_CAPTURES_PER_COMMIT = 50
_RANGE_PACE = 0.25
"""Ranges are served from object storage, which takes more requests than the index does."""
_PAGE_TYPES = ("response", "resource", "conversion", "revisit")


async def collect_captures(
    config: CollectConfig,
    source: CommonCrawlConfig,
    context: StageContext,
    head: WarcHead,
    transfer: Transfer,
) -> int:
    """Write the records that the index names to the output. Returns how many pages there are.

    The answer of the index is kept in scratch, and so is how far the records got.
    """
    items = await _listed(source, context.scratch / "captures.json", transfer)
    state_path = context.scratch / "captures-done.json"
    state = _load(state_path) or {
        "num_items": 0,
        "num_pages": 0,
        "failures_offset": 0,
        "position": asdict(WarcPosition()),
    }
    num_pages = state["num_pages"]
    with (
        FailureLog(context.output, state["failures_offset"]) as failures,
        WarcWriter(context.output, head, config.max_file_bytes, WarcPosition(**state["position"])) as writer,
        context.progress("fetch records", total=len(items), unit="pages") as progress,
    ):
        for number in range(state["num_items"], len(items)):
            item = items[number]
            if isinstance(item, Unfound):
                failures.add(item.where, item.reason)
            else:
                num_pages += await _add(item, source, context.scratch, transfer, writer, failures)
            if (number + 1) % _CAPTURES_PER_COMMIT == 0 or number + 1 == len(items):
                done = {
                    "num_items": number + 1,
                    "num_pages": num_pages,
                    "failures_offset": failures.sync(),
                    "position": asdict(writer.sync()),
                }
                write_atomically(state_path, json.dumps(done).encode())
            progress.set(number + 1, pages=num_pages)
    return num_pages


async def _listed(source: CommonCrawlConfig, path: Path, transfer: Transfer) -> list[Capture | Unfound]:
    """What the index says, or said to an earlier attempt."""
    key = digest_of_json(source.model_dump(mode="json"))
    kept = _load(path)
    if kept is not None and kept["key"] == key:
        captures = [Capture(**each) for each in kept["captures"]]
        return [*captures, *(Unfound(**each) for each in kept["unfound"])]
    items = await find_captures(transfer, source)
    told = {
        "key": key,
        "captures": [asdict(item) for item in items if isinstance(item, Capture)],
        "unfound": [asdict(item) for item in items if isinstance(item, Unfound)],
    }
    write_atomically(path, json.dumps(told).encode())
    return items


def _load(path: Path) -> dict | None:
    return json.loads(path.read_bytes()) if path.exists() else None


async def _add(
    capture: Capture,
    source: CommonCrawlConfig,
    scratch: Path,
    transfer: Transfer,
    writer: WarcWriter,
    failures: FailureLog,
) -> int:
    """Write one record. Returns 1 for a page; what cannot be had or verified is reported."""
    reason = ""
    for _ in range(2):  # a wrong digest may be the connection's fault: ask once more
        await transfer.pace(source.request_delay_s * _RANGE_PACE)
        try:
            member = await _fetch(capture, source, transfer)
        except Refused as refusal:
            failures.add(capture.url, f"not fetched: {refusal}")
            return 0
        fault = _fault(member, capture, scratch / "member.warc.gz")
        if fault is None:
            writer.write_member(member)
            return 1
        reason = fault
    failures.add(capture.url, reason)
    return 0


async def _fetch(capture: Capture, source: CommonCrawlConfig, transfer: Transfer) -> bytes:
    url = f"{source.base_url}/{capture.file}"
    end = capture.offset + capture.num_bytes - 1
    try:
        return await transfer.get(
            url, capture.num_bytes, {"Range": f"bytes={capture.offset}-{end}"}, status=206
        )
    except Refused as refusal:
        if refusal.status == 200:
            raise BessemerError(f"{url}: the server gives whole files only, no byte ranges") from refusal
        raise


def _fault(member: bytes, capture: Capture, path: Path) -> str | None:
    """Why the bytes are not the capture's record; `path` is where they may be put for a moment."""
    if len(member) != capture.num_bytes:
        return f"cut short: {len(member)} of {capture.num_bytes} bytes"
    if not _is_one_member(member):
        return "damaged record: the range is not one whole gzip member"
    path.write_bytes(member)
    items = list(read_warc(path))
    path.unlink()
    if len(items) != 1 or isinstance(items[0], WarcDamage):
        reasons = [item.reason for item in items if isinstance(item, WarcDamage)] or ["not one record"]
        return f"damaged record: {reasons[0]}"
    return _record_fault(items[0], capture)


def _record_fault(record: WarcRecord, capture: Capture) -> str | None:
    if record.type not in _PAGE_TYPES:
        return f"another record: a {record.type or 'nameless'} record where the index has a page"
    if record.uri != capture.url:
        return f"another record: it is of {record.uri[:200]}"
    if capture.digest and record.type != "revisit" and not payload_fits(record, capture.digest):
        return f"wrong digest: payload is not {capture.digest}, which the index has"
    return wrong_digest(record)


def _is_one_member(content: bytes) -> bool:
    """Whether all of the content is one gzip member, of a record that is not too large to read."""
    inflater = zlib.decompressobj(wbits=31)
    num_bytes, waiting = 0, content
    try:
        while not inflater.eof and num_bytes <= 2 * MAX_BLOCK_BYTES:
            inflated = inflater.decompress(waiting, 1 << 20)
            waiting = inflater.unconsumed_tail
            num_bytes += len(inflated)
            if not inflated and not waiting:
                break
    except zlib.error:
        return False
    return inflater.eof and not inflater.unused_data
