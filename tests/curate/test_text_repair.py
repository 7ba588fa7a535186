"""Wrong declarations, misread UTF-8, invisible characters and hostile tags."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.curate.extraction import ExtractionFault, clean, decode, extract_html
from bessemer.curate.extraction.mojibake import repair_mojibake
from bessemer.curate.kernels.page_shape import page_shape


@pytest.mark.parametrize(
    ("text", "written_in", "declared"),
    [
        ("Привет, мир! Как дела сегодня?", "cp1251", "windows-1251"),
        ("中文网页的内容，包括镕字", "gb18030", "gb2312"),
        ("これは日本語の文章です。①", "cp932", "shift_jis"),
        ("これは日本語の文章です。", "iso2022_jp", "utf-8"),
        ("Plain English in two bytes", "utf-16-le", ""),
        ("ağaç ışık", "cp1254", "iso-8859-9"),
        ("Привет, мир! Как дела сегодня? Всё хорошо, спасибо.", "cp1251", "utf-8"),
    ],
)
def test_text_is_decoded_under_right_narrow_and_wrong_declarations(text, written_in, declared):
    assert decode(text.encode(written_in), f"text/html; charset={declared}")[0] == text


@given(st.binary(max_size=300), st.text(max_size=40))
def test_any_bytes_under_any_declaration_decode(content: bytes, label: str):
    text, encoding = decode(content, f"text/html; charset={label}")
    assert isinstance(text, str)
    assert encoding


@pytest.mark.parametrize("text", ["don’t – “stop”", "café déjà vu", "Привет", "naïve €5 … done", "日本語"])
@pytest.mark.parametrize("rounds", [1, 2])
def test_misread_utf_8_is_undone_however_often_it_happened(text: str, rounds: int):
    garbled = text
    for _ in range(rounds):
        garbled = "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in garbled.encode())
    assert repair_mojibake(garbled)[0] == text
    assert clean(garbled).notes["mojibake_runs"] > 0


@pytest.mark.parametrize(
    "text", ["“café…” é»", "AMANHÃ”", "„Über“ Größe", "CAFÉ» ÉTÉ", "Ångström Å", "São João â", "plain"]
)
def test_text_in_order_is_left_alone(text: str):
    assert repair_mojibake(text) == (text, 0)


def test_invisible_characters_go_and_those_with_meaning_stay():
    assert clean("co\xadop a\u200bb \u202ex\u202c \ufeffy z\U000e0041").text == "coop ab x y z"
    for kept in ("می\u200cخواهم", "👩\u200d👧", "ไทย\u200bไทย", "🏴\U000e0067\U000e0062\U000e007f"):
        assert clean(kept).text == kept
    assert clean("e\u0301").text == "é"
    assert clean("e\u0301", normalize=False).text == "e\u0301"


@given(st.text(max_size=200))
def test_normal_form_is_stable_and_composed(text: str):
    once = clean(text, repair=False).text
    assert clean(once, repair=False).text == once
    assert unicodedata.is_normalized("NFC", once)


def test_a_hundred_thousand_marks_on_a_letter_are_cut_in_bounded_time():
    started = time.process_time()
    assert len(clean("a" + "\u0301\u0316" * 50_000).text) <= 32
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("html", "rule"),
    [
        ("<p>" + "".join(f"<b id={i}>" for i in range(1000)) + "<p>x" * 5000, "extract.copies"),
        ("<div>" * 1900 + "</p>" * 100_000, "extract.steps"),
        ("<br>" * 1_000_001, "extract.tags"),
    ],
)
def test_small_pages_that_would_take_gigabytes_or_minutes_are_dropped(html: str, rule: str):
    with pytest.raises(ExtractionFault) as caught:
        extract_html(html, 2000)
    assert caught.value.rule == rule


def test_the_longest_tag_counts_its_quoted_values_and_takes_linear_time():
    assert page_shape("<a title='x>y>z' id=1>t</a>").longest_tag == len(" title='x>y>z' id=1")
    started = time.process_time()
    assert page_shape("<a " * 1_000_000).longest_tag > 2_000_000
    assert time.process_time() - started < 10
