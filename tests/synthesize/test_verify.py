import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.synthesize.conversations import KINDS, key_of
from bessemer.synthesize.facts import Fact, answer_to
from bessemer.synthesize.phrasings import REFUSAL
from bessemer.synthesize.verify import Verdict, is_refusal, normalized_words, verify

RIGHT, WRONG, REFUSED = Verdict.RIGHT, Verdict.WRONG, Verdict.REFUSED
GCD = "Return the greatest common divisor of a and b."


@pytest.mark.parametrize(
    ("answer", "key", "verdict"),
    [
        # the words themselves
        (GCD, GCD, RIGHT),
        ("return the GREATEST common divisor of a and b", GCD, RIGHT),
        ("Return the greatest common divisor, of `a` and `b`!", GCD, RIGHT),
        ("Well:  return the greatest\ncommon divisor of a and b.\nIt takes a.", GCD, RIGHT),
        ("Return the least common multiple of a and b.", GCD, WRONG),
        ("Return the greatest common divisor of b and a.", GCD, WRONG),
        ("Return the very greatest common divisor of a and b.", GCD, WRONG),
        ("Return the greatest common divisor of a and b and c.", GCD, WRONG),
        ("Return the greatest common divisor.", GCD, WRONG),
        ("", GCD, WRONG),
        ("...", GCD, WRONG),
        # dotted names stay whole
        ("norm is in numpy.linalg.", "is in numpy.linalg.", RIGHT),
        ("norm is in `numpy.linalg`", "is in numpy.linalg.", RIGHT),
        ("norm is in numpy.", "is in numpy.linalg.", WRONG),
        ("norm is in numpy.linalg.", "is in numpy.", WRONG),
        ("norm is in linalg.", "is in numpy.linalg.", WRONG),
        ("It is in os.path.", "is in os.", WRONG),
        ("It is in the math module.", "is in math.", WRONG),
        ("It is in cmath.", "is in math.", WRONG),
        # one claim and no other
        ("norm is in numpy. norm is in numpy.linalg.", "is in numpy.linalg.", WRONG),
        ("norm is in numpy or numpy.linalg.", "is in numpy.linalg.", WRONG),
        ("It returns str. It returns int.", "returns int.", WRONG),
        ("It takes x. It takes a and b.", "takes a and b.", WRONG),
        ("Returns what a returns.", "Returns what a returns.", RIGHT),
        # lists of arguments: all of them and no more
        ("It takes a and b.", "takes a and b.", RIGHT),
        ("gcd takes a and b", "takes a and b.", RIGHT),
        ("It takes a, b and c.", "takes a and b.", WRONG),
        ("It takes x, a and b.", "takes a and b.", WRONG),
        ("It takes a and b and c.", "takes a and b.", WRONG),
        ("It takes x and y.", "takes x.", WRONG),
        ("It takes x.", "takes x and y.", WRONG),
        ("It takes path_like.", "takes path.", WRONG),
        ("It takes no arguments.", "takes no arguments.", RIGHT),
        ("It takes arguments.", "takes no arguments.", WRONG),
        # types: that one and no other
        ("It returns int.", "returns int.", RIGHT),
        ("It returns list of int.", "returns int.", WRONG),
        ("It returns int or None.", "returns int.", WRONG),
        ("It returns int. It takes x.", "returns int.", RIGHT),
        ("It returns integer.", "returns int.", WRONG),
        # declining
        (REFUSAL, GCD, REFUSED),
        ("I don\u2019t know.", GCD, REFUSED),
        ("i DON'T know", "math", REFUSED),
        ("I don't know. gcd is in math.", "is in math.", REFUSED),
        (REFUSAL, None, RIGHT),
        ("I don\u2019t know that one.", None, RIGHT),
        ("Sorry, I don't know!", None, RIGHT),
        ("I don't know. It returns int.", None, WRONG),
        ("I don't know, but it returns int.", None, WRONG),
        (f"{REFUSAL} It takes x.", None, WRONG),
        (GCD, None, WRONG),
        ("", None, WRONG),
        ("Do I know? I don't.", None, WRONG),
        ("Mimi don't know", None, WRONG),
        ("You don't know.", None, WRONG),
    ],
)
def test_an_answer_is_judged_by_the_key_of_its_reference(answer, key, verdict):
    assert verify(answer, key).verdict is verdict


def test_a_wrong_verdict_says_what_is_missing_or_that_the_order_is():
    assert verify("Return a.", GCD).reason == "misses the, greatest, common, divisor, of"
    assert verify("b and a", "a and b").reason == "words out of order or more than the key"


@pytest.mark.parametrize("key", ["", "...", "__"])
def test_a_key_without_words_is_a_fault_not_a_free_pass(key):
    with pytest.raises(ValueError, match="holds no words"):
        verify("anything", key)


def fact(**given):
    defaults = {"arguments": ("a", "b"), "returns": "int"}
    return Fact("math.gcd", "function", GCD, **{**defaults, **given}, document_id="d")


@pytest.mark.parametrize(
    "known", [fact(), fact(arguments=()), fact(arguments=("x",)), fact(returns="list of str")]
)
@pytest.mark.parametrize("kind", KINDS)
def test_every_reference_answer_passes_its_own_key_and_no_other_kinds(known, kind):
    key = key_of(known, kind)
    for other in KINDS:
        answer = answer_to(known, other)
        assert answer is not None
        assert (verify(answer, key).verdict is RIGHT) == (other == kind)


def test_names_stay_whole_and_other_punctuation_goes():
    assert normalized_words("Use `numpy.linalg.norm`(x, ord_=2) -- e.g.  NaN!") == [
        "use",
        "numpy.linalg.norm",
        "x",
        "ord",
        "2",
        "e.g",
        "nan",
    ]


@given(st.text(), st.none() | st.text(alphabet="ab c.,", min_size=1).filter(normalized_words))
def test_any_text_gets_a_verdict_with_a_reason(answer, key):
    verified = verify(answer, key)
    assert verified.reason
    assert (verified.verdict is REFUSED) <= (key is not None and is_refusal(answer))


@given(st.text(), st.text())
def test_a_refusal_inside_any_text_is_seen(before, after):
    assert is_refusal(f"{before} {REFUSAL} {after}")


@given(
    st.lists(st.sampled_from(["a", "b", "c.d", "e_f"]), min_size=1, max_size=4), st.text(alphabet=" ,!`\n")
)
def test_punctuation_around_the_words_never_matters(words, noise):
    assert verify(noise + f" {noise}".join(words).upper() + noise, " ".join(words)).verdict is RIGHT
