"""What every config shares: a frozen pydantic base that refuses unknown keys, and numbers with units.

A recipe may write `20M`, `1.5B`, `10m` or `2GiB` wherever a field is a `Count`, `Seconds` or
`Bytes`; code only ever sees plain numbers.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

_COUNT_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_SECOND_UNITS = {"": 1, "ms": Decimal("0.001"), "s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTE_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_NUMBER = re.compile(r"\s*([+-]?[0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*([a-zA-Z]*)\s*")


_MAX_EXPONENT = 30
"""Powers of ten beyond this are a slip of the finger, and a number of 10^9 digits would fill the memory."""


def _scaled(value: str, units: Mapping[str, int | Decimal], example: str) -> Decimal:
    """The number that `value` writes, exactly: in floating point `1.005k` would not be whole."""
    match = _NUMBER.fullmatch(value)
    if match is None:
        raise ValueError(f"expected a number such as {example}, got {value!r}")
    unit = match[2].lower()
    if unit not in units:
        known = ", ".join(name for name in units if name)
        raise ValueError(f"unknown unit {match[2]!r} in {value!r}; known units: {known}")
    number = Decimal(match[1])
    if abs(number.adjusted()) > _MAX_EXPONENT:
        raise ValueError(f"{value!r} is out of range")
    return number * units[unit]


def parse_count(value: object) -> object:
    """`20M` → 20_000_000. Suffixes k, M, B, T are powers of a thousand; plain numbers pass through."""
    if not isinstance(value, str):
        return value
    count = _scaled(value, _COUNT_UNITS, "4096, 20M or 1.5B")
    if count != int(count):
        raise ValueError(f"{value!r} is not a whole number")
    return int(count)


def parse_seconds(value: object) -> object:
    """`10m` → 600.0. Suffixes ms, s, m, h, d; plain numbers are seconds."""
    return value if not isinstance(value, str) else float(_scaled(value, _SECOND_UNITS, "30s, 10m or 2h"))


def parse_bytes(value: object) -> object:
    """`2GiB` → 2_147_483_648. Decimal (kB, MB, …) and binary (KiB, MiB, …) suffixes; parts of a byte go."""
    return value if not isinstance(value, str) else int(_scaled(value, _BYTE_UNITS, "512MiB or 2GB"))


Count = Annotated[int, BeforeValidator(parse_count)]
"""A whole number; the recipe may write 20M."""
Seconds = Annotated[float, BeforeValidator(parse_seconds)]
"""A duration in seconds; the recipe may write 10m."""
Bytes = Annotated[int, BeforeValidator(parse_bytes)]
"""A size in bytes; the recipe may write 2GiB."""


_FREE_KEYS = ("parallel", "report_to")
"""Keys of a stage's config that say how its work is shared out among processes, and which tools are told of
it. They are no part of what decides an artifact: a run that was begun with others goes on."""
_DECIDING = {"parallel": {"gradient_dtype": "float32"}}
"""Keys within them that change numbers by more than rounding, and the values that do not."""


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a stage's config as JSON, what its artifact depends on."""
    kept = {name: value for name, value in config.items() if name not in _FREE_KEYS}
    for name, harmless in _DECIDING.items():
        given = config.get(name) or {}
        changes = {key: given[key] for key, value in harmless.items() if given.get(key, value) != value}
        if changes:
            kept[name] = changes
    return kept


class Config(BaseModel):
    """Base of every config: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def remarks(self) -> list[str]:
        """What is allowed and yet perhaps not meant, each with its mend; said before a recipe runs."""
        return []
