"""Wrong declarations, misread UTF-8, invisible characters and hostile tags."""

import re
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


@pytest.mark.parametrize("declared", ["", "utf-8", "iso-8859-1"])
def test_utf_8_with_a_few_broken_places_is_read_as_utf_8(declared: str):
    text = "Über die Brücke führt kein Weg zurück, sagt der müde Bäcker. Größe und Gemüse für später. ő"
    cut = text.encode()[:-1]  # as where an archive truncates a page
    stray = text.encode().replace(b"kein", b"ke\xffin")
    assert decode(cut, f"text/html; charset={declared}") == (text[:-1] + "\ufffd", "utf-8")
    assert decode(stray, f"text/html; charset={declared}") == (text.replace("kein", "ke\ufffdin"), "utf-8")


@pytest.mark.parametrize(
    "written_in", ["cp1251", "gb18030", "euc_jp", "shift_jis", "euc_kr", "koi8-r", "cp1252", "iso8859-7"]
)
def test_other_encodings_are_not_taken_for_broken_utf_8(written_in: str):
    text = {
        "cp1251": "Дом у реки продали в прошлом году",
        "koi8-r": "Дом у реки продали в прошлом году",
        "gb18030": "河边的房子去年卖掉了，现在没有人知道谁住在里面",
        "euc_kr": "강가의 집은 작년에 팔렸고 지금 누가 그 집에 사는지",
        "cp1252": "Über die Brücke führt kein Weg zurück, “sagt” der müde Bäcker",
        "iso8859-7": "Το σπίτι δίπλα στο ποτάμι πουλήθηκε πέρυσι",
    }.get(written_in, "川のそばの家は去年売られて、今は誰が住んでいるのか誰も知らない")
    assert decode(text.encode(written_in), f"text/html; charset={written_in}")[0] == text


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


def test_printable_text_holds_nothing_that_normal_form_takes_out_or_replaces():
    """So that text that is printable, which is nearly all, need not be searched for it."""
    printable = "a".join(filter(str.isprintable, map(chr, range(0x110000))))
    for control in ("", "\x07"):  # with which the text is searched
        assert clean(f"{control}a{printable}a", repair=False, normalize=False).text == f"a{printable}a"


@given(st.integers(0, 80), st.text(st.sampled_from("ab\n"), max_size=70))
def test_no_more_than_thirty_marks_stay_on_a_letter_wherever_it_stands(num_marks: int, before: str):
    text = clean(f"{before}x{chr(0x316) * num_marks}y").text
    assert text.count(chr(0x316)) == min(num_marks, 30)


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


@given(st.text(alphabet="<>/a \n文éक🙂’✓✒\u1fff\u2000", max_size=40))
def test_page_shape_tells_whether_a_lone_letter_needs_care(html):
    has_lone = re.search(r">[ \t-\r]*[文क✓\u1fff][ \t-\r]*<", html) is not None
    assert (page_shape(html).lone_letters > 0) == has_lone


def test_page_shape_counts_tags_of_options():
    html = "<select><OptGroup label=a><option>1</option><option selected>2</select><!-- <optionally> -->"
    assert page_shape(html).num_options == 4


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<table><tr><td>a<br>b</table>", 1),
        ("<table><tr><td>a</table><p>b", 0),
        ("<TABLE><tr><td><p>a</TABLE><table><td><div>c</div>", 2),
        ("<table><td><table><td>a<br>b</table>c<br></table>", 1),
        ("<table><td><ul><li>a</ul><br></table>", 0),
        ("</table><table><td>a<br><h2>b</h2></table>", 0),
        ("<table><td><br>" * 60, 1),
        ("<table><td><br>" * 200, 0),  # deeper than any page worth mending
    ],
)
def test_page_shape_counts_tables_of_figures(html, expected):
    assert page_shape(html).tables_of_figures == expected
