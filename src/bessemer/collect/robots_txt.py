"""robots.txt: the file itself (RFC 9309), with Crawl-delay, Sitemap, and what it says about training.

`Content-Signal: ai-train=no` is Cloudflare's, `Content-Usage: [path] train-ai=n` is the IETF working
group AIPREF's (draft-ietf-aipref-attach and draft-ietf-aipref-vocab); neither is a standard yet.
"""

import math
import re
from dataclasses import dataclass, field

from bessemer.collect.path_patterns import PathPattern, compile_pattern, subject_of

_LINE = re.compile(r"[^\r\n]+")
_TRAINING_PREFERENCE = re.compile(r"(?:^|[\s,;])(ai-train|train-ai)\s*=\s*(yes|no|y|n)\b", re.IGNORECASE)
_SIGNALS = frozenset({"content-signal", "content-usage"})


@dataclass(frozen=True)
class PathRule:
    """A pattern, and what holds for the paths that it matches."""

    pattern: PathPattern
    is_allowed: bool
    text: str
    """The line's value, for reports."""


@dataclass(frozen=True)
class RobotsTxt:
    """What one robots.txt says to one crawler."""

    rules: tuple[PathRule, ...] = ()
    crawl_delay_s: float | None = None
    sitemaps: tuple[str, ...] = ()
    """As written, wherever they stand in the file."""
    training: tuple[PathRule, ...] = ()
    """Whether pages may be used for training."""

    def is_allowed(self, url: str) -> bool:
        """Whether the crawler may fetch a canonical URL. robots.txt itself is always allowed."""
        subject = subject_of(url)
        rule = _most_specific(self.rules, subject, wins_ties=True)
        return subject == "/robots.txt" or rule is None or rule.is_allowed

    def reservation(self, url: str) -> str | None:
        """The preference that keeps a page from training, None when there is none."""
        rule = _most_specific(self.training, subject_of(url), wins_ties=False)
        return None if rule is None or rule.is_allowed else rule.text


@dataclass
class _Group:
    agents: set[str] = field(default_factory=set)
    rules: list[PathRule] = field(default_factory=list)
    training: list[PathRule] = field(default_factory=list)
    delays_s: list[float] = field(default_factory=list)


def parse_robots_txt(text: str, product: str) -> RobotsTxt:
    """Read a robots.txt for the crawler with this product token.

    All groups that name the product (in any case) are one; without any, those of `*` are (section
    2.2.1). Lines that are not understood are passed over, and only Allow and Disallow end a list of
    user agents: other records must not interfere (section 2.2.4).
    """
    everywhere = _Group()
    groups: list[_Group] = []
    current, is_listing_agents = everywhere, False
    sitemaps: dict[str, None] = {}
    for key, value in _directives(text):
        if key == "user-agent":
            if not is_listing_agents:
                current, is_listing_agents = _Group(), True
                groups.append(current)
            current.agents.add(_product_of(value))
        elif key in ("allow", "disallow"):
            is_listing_agents = False
            if value:
                current.rules.append(PathRule(compile_pattern(value), key == "allow", value))
        elif key == "crawl-delay":
            current.delays_s.extend(_seconds(value))
        elif key == "sitemap":
            sitemaps[value] = None
        elif key in _SIGNALS:
            current.training.extend(_training_rules(value))
    chosen = [group for group in groups if product.lower() in group.agents]
    chosen = chosen or [group for group in groups if "*" in group.agents]
    return RobotsTxt(
        tuple(rule for group in chosen for rule in group.rules),
        max((delay_s for group in chosen for delay_s in group.delays_s), default=None),
        tuple(sitemaps),
        tuple(rule for group in (everywhere, *chosen) for rule in group.training),
    )


def training_preference(value: str) -> bool | None:
    """Whether a Content-Usage or Content-Signal value allows training; None when it does not say."""
    found = [match[2].lower() for match in _TRAINING_PREFERENCE.finditer(value)]
    return None if not found else not any(answer in ("n", "no") for answer in found)


def _directives(text: str) -> list[tuple[str, str]]:
    directives: list[tuple[str, str]] = []
    for line in _LINE.findall(text.removeprefix("\ufeff")):
        key, colon, value = line.partition("#")[0].partition(":")
        if colon:
            directives.append((key.strip().lower(), value.strip()))
    return directives


def _product_of(value: str) -> str:
    """The product token of a User-agent line, without the version that some lines add."""
    token = re.split(r"[/\s]", value.lower(), maxsplit=1)[0]
    return "*" if token.startswith("*") else token


def _seconds(value: str) -> list[float]:
    try:
        delay_s = float(value)
    except ValueError:
        return []
    return [delay_s] if math.isfinite(delay_s) and delay_s >= 0 else []


def _training_rules(value: str) -> list[PathRule]:
    """`[path] preference`: without a path it holds for the whole host."""
    path, _, preference = value.partition(" ") if value.startswith("/") else ("/", "", value)
    is_allowed = training_preference(preference)
    return [] if is_allowed is None else [PathRule(compile_pattern(path), is_allowed, value)]


def _most_specific(rules: tuple[PathRule, ...], subject: str, wins_ties: bool) -> PathRule | None:
    """The rule with the longest pattern that matches; of equally long ones, the one that `is_allowed`
    as `wins_ties` says."""
    best: PathRule | None = None
    for rule in rules:
        if best is not None:
            gain = rule.pattern.num_octets - best.pattern.num_octets
            if gain < 0 or (gain == 0 and rule.is_allowed != wins_ties):
                continue
        if rule.pattern.matches(subject):
            best = rule
    return best
