"""Transcripts: SubRip (.srt) and WebVTT (.vtt) cues to running text.

Timings and markup go, speakers stay as `Name: ` before what they say. A new speaker, a dash that opens a
turn, or a pause begins a new paragraph. Live captions that roll, showing each line again in the next
cue, are said once. SubRip has no standard; WebVTT is a W3C Candidate Recommendation.
"""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bessemer.collect.config import CollectConfig
from bessemer.collect.readers.compressed import DamagedFile, read_bounded
from bessemer.collect.readers.decoding import decode_text
from bessemer.collect.readers.pages import TEXT_TYPE, Fault, Page

_TIMESTAMP = r"(?:(\d{1,4}):)?([0-5]?\d):([0-5]?\d)(?:[.,](\d{1,3}))?"
_TIMING = re.compile(rf"[ \t]*{_TIMESTAMP}[ \t]*-->[ \t]*{_TIMESTAMP}(?:[ \t].*)?")
_VOICE = re.compile(r"<v(?:\.[^ \t>]{0,100})?[ \t]+([^<>]{1,100})>")
_MARKUP = re.compile(r"</?[A-Za-z0-9][^<>\n]{0,300}>|\{\\[^{}\n]{0,100}\}")
_TURN = re.compile(r"[-–—>]{1,2}[ \t]*(?=\S)")
_LABEL = re.compile(r"(?:[A-Z][\w.'’-]{0,30}(?: [A-Z0-9][\w.'’-]{0,30}){0,3}|[A-Z][A-Z0-9 .'’-]{1,40}): ")
_BLOCK_END = re.compile(r"\n[ \t]*\n")
_HEADINGS = ("NOTE", "STYLE", "REGION")
_PAUSE_S = 4.0
"""A silence of so long begins a paragraph."""


@dataclass(frozen=True)
class _Line:
    """What one line of a cue says."""

    speaker: str
    """From a voice tag; empty without one."""
    words: str


@dataclass(frozen=True)
class _Cue:
    start_s: float
    end_s: float
    lines: tuple[_Line, ...]


def read_transcript(path: Path, config: CollectConfig) -> Iterator[Page | Fault]:
    """The text of all cues as one page. Blocks that are no cues are reported by number."""
    try:
        body = read_bounded(path, config.max_document_bytes)
    except DamagedFile as damage:
        yield Fault("", str(damage))
        return
    if body is None:
        yield Fault("", f"too long: more than {config.max_document_bytes} bytes")
        return
    cues: list[_Cue] = []
    num_bad, first_bad = 0, 0
    for number, block in _blocks(decode_text(body)):
        cue = _parse(block)
        if cue is None:
            num_bad, first_bad = num_bad + 1, first_bad or number
        elif cue.lines:
            cues.append(cue)
    if num_bad:
        reason = f"bad cue: {num_bad} blocks without a line of timings, the first is block {first_bad}"
        yield Fault(str(first_bad), reason, is_kept=bool(cues))
    if cues:
        yield Page(TEXT_TYPE, _join(cues).encode("utf-8", "replace"), is_converted=True)
    elif not num_bad:
        yield Fault("", "no text: the transcript holds no words")


def _blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """Blocks of lines with their numbers from 1; WebVTT's header, notes and styles are left out."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").strip("\n")
    for number, block in enumerate(_BLOCK_END.split(text), start=1):
        lines = [line for line in block.split("\n") if line.strip()]
        if not lines:
            continue
        first = lines[0].split(maxsplit=1)[0]
        if not (number == 1 and first == "WEBVTT") and first not in _HEADINGS:
            yield number, lines


def _parse(lines: list[str]) -> _Cue | None:
    """A cue from its block: perhaps an identifier, the timings, the text."""
    for index, line in enumerate(lines[:2]):
        timing = _TIMING.fullmatch(line)
        if timing:
            times = timing.groups()
            spoken = tuple(line for line in map(_line, lines[index + 1 :]) if line.words)
            return _Cue(_seconds(*times[:4]), _seconds(*times[4:]), spoken)
    return None


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction or 0}")


def _line(text: str) -> _Line:
    voice = _VOICE.search(text)
    words = " ".join(html.unescape(_MARKUP.sub("", _VOICE.sub("", text))).split())
    return _Line(" ".join(html.unescape(voice[1]).split()) if voice else "", words)


def _join(cues: list[_Cue]) -> str:
    paragraphs: list[list[str]] = [[]]
    shown: tuple[_Line, ...] = ()
    speaker = ""
    end_s = cues[0].start_s
    for cue in cues:
        is_break = cue.start_s - end_s >= _PAUSE_S
        for line in _news(shown, cue.lines):
            is_other = bool(line.speaker) and line.speaker != speaker
            turn = _TURN.match(line.words)
            words = line.words[turn.end() :] if turn else line.words
            if paragraphs[-1] and (is_break or is_other or turn or _LABEL.match(words)):
                paragraphs.append([])
            is_named = bool(line.speaker) and not paragraphs[-1]
            paragraphs[-1].append(f"{line.speaker}: {words}" if is_named else words)
            speaker = line.speaker or speaker
            is_break = False
        shown, end_s = cue.lines, max(end_s, cue.end_s)
    return "\n\n".join(" ".join(lines) for lines in paragraphs)


def _news(shown: tuple[_Line, ...], lines: tuple[_Line, ...]) -> tuple[_Line, ...]:
    """Lines of a cue that the one before did not end with already."""
    for count in range(min(len(shown), len(lines)), 0, -1):
        if shown[-count:] == lines[:count]:
            return lines[count:]
    return lines
