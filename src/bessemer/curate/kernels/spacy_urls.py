"""What spaCy's tokenizer takes for a web address and leaves whole (spaCy 3.8, `URL_PATTERN`, after D.
Perini).

scheme:// (optional), user:password@ (optional), a public IPv4 address or a host with a lower-case top-level
domain, :port (optional), and a path, query or fragment (optional).
"""

from numba import njit

from bessemer.curate.kernels.spacy_tables import LOWER, WORD

_DOT, _AT, _COLON, _SLASH = ord("."), ord("@"), ord(":"), ord("/")
_LONGEST_LABEL, _LONGEST_DOMAIN = 64, 63
_NONE = -1


@njit(cache=True)
def is_url(codes, start, end, classes):
    """Whether the whole range is a web address. Linear in its length but for hosts, which end at an `@`."""
    if _is_host_onwards(codes, start, end, classes):
        return True
    after_scheme = _after_scheme(codes, start, end, classes)
    if after_scheme != _NONE and _is_host_onwards(codes, after_scheme, end, classes):
        return True
    for position in range(start + 1, end):
        if codes[position] == _AT and _is_host_onwards(codes, position + 1, end, classes):
            return True
    return False


@njit(cache=True)
def _after_scheme(codes, start, end, classes):
    position = start
    while position < end and (classes[codes[position]] & WORD or codes[position] in (43, 45, 46)):
        position += 1
    if position - start < 2 or position + 2 >= end:
        return _NONE
    if codes[position] == _COLON and codes[position + 1] == _SLASH and codes[position + 2] == _SLASH:
        return position + 3
    return _NONE


@njit(cache=True)
def _is_digit(code):
    return 48 <= code <= 57


@njit(cache=True)
def _is_end(codes, position, end):
    """Whether a port, a path or nothing follows a host."""
    if position < end and codes[position] == _COLON:
        first = position + 1
        position = first
        while position < end and position - first < 5 and _is_digit(codes[position]):
            position += 1
        if position - first < 2:
            return False
    return position == end or codes[position] == _SLASH or codes[position] == 63 or codes[position] == 35


@njit(cache=True)
def _is_label_end(code):
    """First and last sign of a label of a host name."""
    return 48 <= code <= 57 or 65 <= code <= 90 or 97 <= code <= 122 or 0xA1 <= code <= 0xFFFF


@njit(cache=True)
def _is_host_onwards(codes, start, end, classes):
    if start < end and _is_digit(codes[start]) and _is_address(codes, start, end):
        return True
    position = start
    while position < end:
        if position > start:
            last = position
            while last < end and last - position <= _LONGEST_DOMAIN and classes[codes[last]] & LOWER:
                last += 1
            if 2 <= last - position <= _LONGEST_DOMAIN and _is_end(codes, last, end):
                return True
        last = position
        while last < end and (_is_label_end(codes[last]) or codes[last] == 95 or codes[last] == 45):
            last += 1
        length = last - position
        if last >= end or codes[last] != _DOT or length < 1 or length > _LONGEST_LABEL:
            return False
        if not _is_label_end(codes[position]) or not _is_label_end(codes[last - 1]):
            return False
        position = last + 1
    return False


@njit(cache=True)
def _octet(codes, position, end):
    """Value and end of up to three digits; the value of none is -1."""
    value, first = 0, position
    while position < end and position - first < 3 and _is_digit(codes[position]):
        value = value * 10 + codes[position] - 48
        position += 1
    return (value if position > first else -1), position


@njit(cache=True)
def _is_address(codes, start, end):
    """An IPv4 address that is neither private nor reserved, and what may follow it."""
    first, position = _octet(codes, start, end)
    if codes[start] == 48 or first > 223 or first == 10 or first == 127:
        return False
    second = 0
    for number in range(2, 5):
        if position >= end or codes[position] != _DOT:
            return False
        begin = position + 1
        value, position = _octet(codes, begin, end)
        if value < 0 or value > (254 if number == 4 else 255):
            return False
        if number == 2:
            second = value
        if number == 4 and codes[begin] == 48:
            return False
    if (first == 169 and second == 254) or (first == 192 and second == 168):
        return False
    if first == 172 and 16 <= second <= 31:
        return False
    return _is_end(codes, position, end)
