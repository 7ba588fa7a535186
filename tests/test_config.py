import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bessemer.config import Bytes, Config, Count, Seconds, parse_bytes, parse_count, parse_seconds


class Sizes(Config):
    """Numbers with units."""

    tokens: Count = 1
    """How many."""
    patience: Seconds = 1.0
    """How long."""
    memory: Bytes = 1
    """How large."""


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ("4096", 4096),
        ("20M", 20_000_000),
        ("1.5B", 1_500_000_000),
        ("15T", 15 * 10**12),
        ("100k", 100_000),
        ("100K", 100_000),
        (" 3 k ", 3000),
        ("1_000", 1000),
        ("1e3", 1000),
        ("2.5e-1k", 250),
        ("-2k", -2000),
    ],
)
def test_a_count_may_be_written_with_a_suffix(written, count):
    assert parse_count(written) == count
    assert isinstance(parse_count(written), int)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("250ms", 0.25), ("30s", 30.0), ("10m", 600.0), ("2h", 7200.0), ("1.5d", 129600.0), ("7", 7.0)],
)
def test_a_duration_may_be_written_with_a_unit(written, seconds):
    assert parse_seconds(written) == seconds


@pytest.mark.parametrize(
    ("written", "num_bytes"),
    [("512", 512), ("2kB", 2000), ("512MiB", 512 << 20), ("1.5GiB", 3 << 29), ("2TB", 2 * 10**12)],
)
def test_a_size_may_be_written_with_a_decimal_or_binary_unit(written, num_bytes):
    assert parse_bytes(written) == num_bytes


@given(
    st.integers(min_value=0, max_value=10**6),
    st.integers(min_value=0, max_value=999),
    st.sampled_from([("k", 10**3), ("M", 10**6), ("B", 10**9), ("T", 10**12)]),
)
def test_three_decimals_of_a_suffixed_count_are_always_exact(whole, thousandths, unit):
    suffix, factor = unit
    expected = (whole * 1000 + thousandths) * factor // 1000
    assert parse_count(f"{whole}.{thousandths:03}{suffix}") == expected


@given(st.integers(min_value=-(10**25), max_value=10**25))
def test_a_plain_whole_number_keeps_every_digit(number):
    assert parse_count(str(number)) == number


@given(st.text(max_size=20))
def test_any_text_gives_a_number_or_a_message_and_nothing_else(text):
    for parse in (parse_count, parse_seconds, parse_bytes):
        try:
            found = parse(text)
        except ValueError as error:
            found = error
        assert isinstance(found, int | float) or repr(text) in str(found)


@pytest.mark.parametrize("written", ["1e400", "1e999999999k", "1e-400M"])
def test_a_number_out_of_all_proportion_is_refused(written):
    with pytest.raises(ValueError, match="out of range"):
        parse_count(written)


@pytest.mark.parametrize("written", ["", "many", "20 M M", "0x10", "1,000", "--3", "1.5.2"])
def test_what_is_no_number_is_refused_with_an_example(written):
    with pytest.raises(ValueError, match=r"expected a number such as 4096, 20M or 1\.5B"):
        parse_count(written)


def test_an_unknown_unit_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown unit 'parsecs' .* known units: ms, s, m, h, d"):
        parse_seconds("3 parsecs")
    with pytest.raises(ValueError, match="unknown unit 'GiB'"):
        parse_count("3GiB")


def test_part_of_a_thing_is_no_count():
    with pytest.raises(ValueError, match=r"'0\.0005k' is not a whole number"):
        parse_count("0.0005k")


@given(st.integers() | st.floats(allow_nan=False) | st.none())
def test_plain_numbers_pass_through(value):
    assert parse_count(value) is value
    assert parse_seconds(value) is value
    assert parse_bytes(value) is value


def test_a_config_reads_units_in_every_field():
    sizes = Sizes.model_validate({"tokens": "20M", "patience": "10m", "memory": "2GiB"})
    assert (sizes.tokens, sizes.patience, sizes.memory) == (20_000_000, 600.0, 2 << 30)


def test_a_config_refuses_unknown_keys_and_changes():
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Sizes.model_validate({"token": 1})
    with pytest.raises(ValidationError, match="frozen"):
        Sizes().tokens = 2  # type: ignore[misc]


def test_a_fault_in_a_number_names_the_field():
    with pytest.raises(ValidationError) as caught:
        Sizes.model_validate({"tokens": "20 miles", "memory": "big"})
    assert [error["loc"] for error in caught.value.errors()] == [("tokens",), ("memory",)]


def test_field_docstrings_are_descriptions():
    assert Sizes.model_fields["tokens"].description == "How many."
