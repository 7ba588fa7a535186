import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.synthesize.fabricate import fabricate, pieces_of

NAMES = [
    f"{module}.{short}"
    for module, shorts in {
        "math": ("gcd", "isqrt", "log1p", "copysign"),
        "collections": ("OrderedDict", "Counter", "namedtuple"),
        "os.path": ("join", "split_ext", "real_path", "get_size"),
        "json": ("load_all", "dump_all", "decode32"),
        "zlib": ("join", "crc32"),
    }.items()
    for short in shorts
]
SHORTS = {name.rpartition(".")[2] for name in NAMES}
MODULES = {name.rpartition(".")[0] for name in NAMES}
KNOWN = {*NAMES, *SHORTS}


def made(count, seed=0, known=KNOWN):
    return fabricate(NAMES, known, count, np.random.Generator(np.random.Philox(seed)))


@pytest.fixture(scope="module")
def names():
    return made(1500)


def test_no_fabricated_name_is_known_or_comes_twice(names):
    assert len(set(names)) == len(names) == 1500
    assert KNOWN.isdisjoint(names)


def test_a_real_short_name_stands_only_in_a_module_that_lacks_it(names):
    misplaced = [name for name in names if name.rpartition(".")[2] in SHORTS]
    assert misplaced
    assert all(name.rpartition(".")[0] in MODULES for name in misplaced)


def test_made_up_short_names_come_once_so_that_one_cannot_leak_through_another(names):
    shorts = [name.rpartition(".")[2] for name in names]
    invented = [short for short in shorts if short not in SHORTS]
    assert len(set(invented)) == len(invented)


def test_names_are_ones_that_python_would_take(names):
    assert all(part.isidentifier() for name in names for part in name.split("."))


def test_the_four_kinds_come_in_their_shares():
    names = made(60)  # few, so that real names in wrong modules do not run out
    real_pieces = {piece.lower() for short in SHORTS for piece in pieces_of(short) if len(piece) > 2}
    kinds = {"invented module": 0, "misplaced": 0, "recombined": 0, "invented word": 0}
    for name in names:
        module, _, short = name.rpartition(".")
        if module not in MODULES:
            kinds["invented module"] += 1
        elif short in SHORTS:
            kinds["misplaced"] += 1
        elif any(piece in short.lower() for piece in real_pieces):
            kinds["recombined"] += 1
        else:
            kinds["invented word"] += 1
    shares = {kind: count / 60 for kind, count in kinds.items()}
    expected = {"recombined": 0.45, "misplaced": 0.2, "invented word": 0.25, "invented module": 0.1}
    assert shares == pytest.approx(expected, abs=0.15)


def test_names_are_decided_by_the_seed():
    assert made(50, seed=3) == made(50, seed=3)
    assert made(50, seed=3) != made(50, seed=4)


def test_the_order_of_the_known_names_decides_nothing():
    assert made(50, known=sorted(KNOWN)) == made(50, known=sorted(KNOWN, reverse=True)) == made(50)


def test_fabrication_ends_even_when_real_pieces_are_used_up():
    assert len(fabricate(["m.f"], {"m.f", "f"}, 300, np.random.Generator(np.random.Philox(0)))) == 300


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("read_csv", ["read", "csv"]),
        ("OrderedDict", ["Ordered", "Dict"]),
        ("HTTPServer", ["HTTP", "Server"]),
        ("crc32", ["crc", "32"]),
        ("_private", ["private"]),
        ("__", []),
    ],
)
def test_a_name_falls_into_its_pieces(name, pieces):
    assert pieces_of(name) == pieces


@given(
    st.lists(st.from_regex(r"[a-z]{1,3}\.[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True), min_size=1, max_size=8)
)
@settings(max_examples=30)
def test_any_real_names_give_names_that_are_not_real(names):
    known = {*names, *(name.rpartition(".")[2] for name in names)}
    found = fabricate(names, known, 40, np.random.Generator(np.random.Philox(1)))
    assert len(set(found)) == 40
    assert known.isdisjoint(found)
