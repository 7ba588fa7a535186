"""What a page's owner reserves: noai, TDMRep, Content-Usage. Read here, obeyed by the visitor.

- `X-Robots-Tag: noai` and `<meta name="robots" content="noai">`, a convention begun by DeviantArt in
  2022; `noml` is noml.info's word for the same. `noimageai` speaks of pictures, which are never stored: it
  is recorded and does not keep a page's text away.
- TDMRep, the TDM Reservation Protocol (W3C Community Group final report, 10 May 2024): the file
  `/.well-known/tdmrep.json`, the header `tdm-reservation`, the HTML meta element of that name. The report
  lets the page overrule the header and the header the file. Here the first 1 ends the matter: a page
  that the file reserves is not fetched to see whether it says otherwise.
- `Content-Usage: train-ai=n` (IETF working group AIPREF, draft-ietf-aipref-attach).
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from bessemer.collect.path_patterns import PathPattern, compile_pattern, subject_of
from bessemer.collect.robots_txt import training_preference
from bessemer.formats.http_message import Headers, header_value

_RESERVING = frozenset({"noai", "noml"})
_NOTED = frozenset({"noimageai"})
_NOT_FOLLOWING = frozenset({"nofollow", "none"})
_AGENT_PREFIX = re.compile(r"\s*([A-Za-z0-9_.-]+)\s*:\s*(.*)", re.DOTALL)
_VALUED_DIRECTIVES = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_MAX_TEXT = 300
"""Characters of a value that go into reports."""


@dataclass(frozen=True)
class Signal:
    """One statement of an owner about the use of a page."""

    by: str
    """Where it was made: `x-robots-tag`, `tdm-reservation`, `meta robots`, `tdmrep.json`, …"""
    says: str
    is_reserved: bool
    policy: str | None = None
    """URL of the terms under which the owner may be asked (TDMRep)."""

    def as_json(self) -> dict[str, object]:
        """For the archive."""
        told = {"by": self.by, "says": self.says, "reserved": self.is_reserved}
        return told if self.policy is None else {**told, "policy": self.policy}


@dataclass(frozen=True)
class Statements:
    """What a response's headers, or a page's meta elements, say to this crawler."""

    signals: tuple[Signal, ...] = ()
    is_nofollow: bool = False


def first_reservation(signals: Iterable[Signal]) -> str | None:
    """The reason for storing nothing, None when nothing is reserved."""
    signal = next((signal for signal in signals if signal.is_reserved), None)
    return None if signal is None else f"reserved: {signal.by}: {signal.says}"


def header_statements(headers: Headers, product: str) -> Statements:
    """What the headers of a response say."""
    directives = [
        directive
        for name, value in headers
        if name.lower() == "x-robots-tag"
        for directive in _robots_directives(value, product)
    ]
    signals = _directive_signals("x-robots-tag", directives)
    signals += _tdm_signals(header_value(headers, "tdm-reservation"), header_value(headers, "tdm-policy"))
    for name, value in headers:
        if name.lower() in ("content-usage", "content-signal"):
            signals += _preference_signals(name.lower(), value)
    return Statements(tuple(signals), not _NOT_FOLLOWING.isdisjoint(directives))


def meta_statements(metas: Iterable[tuple[str, str]], product: str) -> Statements:
    """What a page's meta elements say: pairs of name (in lower case) and content."""
    directives: list[str] = []
    tdm: dict[str, str] = {}
    for name, content in metas:
        if name in ("robots", product.lower()):
            directives += re.split(r"[\s,]+", content.strip().lower())
        elif name == "x-robots-tag":
            directives += _robots_directives(content, product)
        elif name in ("tdm-reservation", "tdm-policy"):
            tdm.setdefault(name, content)
    signals = _directive_signals("meta robots", directives)
    signals += _tdm_signals(tdm.get("tdm-reservation"), tdm.get("tdm-policy"), "meta ")
    return Statements(tuple(signals), not _NOT_FOLLOWING.isdisjoint(directives))


@dataclass(frozen=True)
class TdmFile:
    """A host's tdmrep.json: the first rule that matches holds (TDMRep, "TDM File on the Origin Server")."""

    rules: tuple[tuple[PathPattern, Signal], ...] = ()

    def signal(self, url: str) -> Signal | None:
        """What the file says about a canonical URL, None when it does not say."""
        if not self.rules:
            return None
        subject = subject_of(url)
        return next((signal for pattern, signal in self.rules if pattern.matches(subject)), None)


def parse_tdm_file(content: bytes) -> TdmFile:
    """Read tdmrep.json. What does not follow the protocol says nothing, as the report has it."""
    try:
        rules = json.loads(content)
    except (ValueError, RecursionError):
        return TdmFile()
    parsed: list[tuple[PathPattern, Signal]] = []
    for rule in rules if isinstance(rules, list) else [rules]:
        if not isinstance(rule, dict) or not isinstance(rule.get("location"), str):
            continue
        value, policy = rule.get("tdm-reservation"), rule.get("tdm-policy")
        if isinstance(value, bool) or str(value) not in ("0", "1"):
            continue
        location = rule["location"]
        signal = Signal("tdmrep.json", f"{_short(location)} {value}", str(value) == "1", _policy(policy))
        parsed.append((compile_pattern(location), signal))
    return TdmFile(tuple(parsed))


def _robots_directives(value: str, product: str) -> list[str]:
    """Directives of one X-Robots-Tag that hold for this crawler: `noai`, or `name: noai` for one."""
    directives: list[str] = []
    is_meant = True
    for part in value.split(","):
        prefixed = _AGENT_PREFIX.fullmatch(part)
        if prefixed and prefixed[1].lower() not in _VALUED_DIRECTIVES:
            is_meant = prefixed[1].lower() in (product.lower(), "robots")
            part = prefixed[2]
        if is_meant:
            directives.append(part.strip().lower())
    return directives


def _directive_signals(by: str, directives: Iterable[str]) -> list[Signal]:
    told = (directive for directive in directives if directive in _RESERVING | _NOTED)
    return [Signal(by, directive, directive in _RESERVING) for directive in dict.fromkeys(told)]


def _tdm_signals(value: str | None, policy: str | None, where: str = "") -> list[Signal]:
    value = (value or "").strip()
    if value not in ("0", "1"):
        return []  # TDMRep: other values are protocol errors and count as unset
    return [Signal(f"{where}tdm-reservation", value, value == "1", _policy(policy))]


def _preference_signals(name: str, value: str) -> list[Signal]:
    is_allowed = training_preference(value)
    return [] if is_allowed is None else [Signal(name, _short(value), not is_allowed)]


def _policy(value: object) -> str | None:
    return _short(value) if isinstance(value, str) and value else None


def _short(text: str) -> str:
    return " ".join(text[:_MAX_TEXT].split())
