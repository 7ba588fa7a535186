"""Path patterns as robots.txt and tdmrep.json have them: a prefix, `*` for anything, `$` for the end.

RFC 9309, sections 2.2.2 and 2.2.3. Both sides are brought into one spelling of escapes first; a literal
`*` or `$` is written `%2A` or `%24`. Matching takes time in proportion to pattern and path, whatever a
hostile pattern holds.
"""

from dataclasses import dataclass

from bessemer.urls import escaped, request_target


@dataclass(frozen=True)
class PathPattern:
    """A compiled pattern; make it with `compile_pattern`."""

    pieces: tuple[str, ...]
    """The literal parts between asterisks."""
    is_anchored: bool
    num_octets: int
    """Length of the pattern: the longest of several that match decides (RFC 9309, section 2.2.2)."""

    def matches(self, subject: str) -> bool:
        """Whether the pattern matches a path and query as `subject_of` gives them."""
        first, *middle = self.pieces
        if not subject.startswith(first):
            return False
        position = len(first)
        last = middle.pop() if middle else None
        for piece in middle:
            found = subject.find(piece, position)
            if found < 0:
                return False
            position = found + len(piece)
        if last is None:
            return not self.is_anchored or position == len(subject)
        if self.is_anchored:
            return subject.endswith(last) and len(subject) - len(last) >= position
        return subject.find(last, position) >= 0


def compile_pattern(pattern: str) -> PathPattern:
    """Read a pattern."""
    spelled = escaped(pattern)
    is_anchored = spelled.endswith("$")
    pieces = spelled.removesuffix("$").replace("$", "%24").split("*")
    return PathPattern(tuple(pieces), is_anchored, len(spelled))


def subject_of(url: str) -> str:
    """What patterns are matched against: path and query of a canonical URL."""
    return escaped(request_target(url)).replace("*", "%2A").replace("$", "%24")
