"""Strings that spaCy's English tokenizer splits by list rather than by rule: contractions, abbreviations,
emoticons. Facts of spaCy 3.8, `lang/tokenizer_exceptions.py` and `lang/en/tokenizer_exceptions.py`.
"""

from collections.abc import Iterator

Parts = tuple[str, ...]

_PERSONS = "i you he she it we they"
_QUESTIONS = "who what when where why how there that this these those"
_PLURAL = ("these", "those")
_SINGULAR = ("that", "this")
_MODALS = "ca could do does did had may might must need ought sha should wo would"
_WITH_HAVE = "could might must should would"
_PLAIN_NEGATED = "ai are is was were have has dare"
_DROPPED_G = "doin goin nothin nuthin ol somethin lovin havin"
_AMBIGUOUS = {"ill", "its", "hell", "shell", "shed", "were", "well", "whore"}
"""Words in their own right, though they look like contractions."""

_SINGLE = (
    "em ll nuff 'em 'll 'nuff 'S 's ‘S ‘s and/or w/o 're 'Cause 'cause 'cos 'Cos 'coz 'Coz 'cuz "
    "'Cuz 'bout 'd ma'am Ma'am o'clock O'clock Mt. Ak. Ala. Apr. Ariz. Ark. Aug. Calif. Colo. "
    "Conn. Dec. Del. Feb. Fla. Ga. Ia. Id. Ill. Ind. Jan. Jul. Jun. Kan. Kans. Ky. La. Mar. Mass. "
    "Mich. Minn. Miss. N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. Nov. Oct. Okla. Ore. Pa. "
    "S.C. Sep. Sept. Tenn. Va. Wash. Wis. a.m. Adm. Bros. co. Co. Corp. D.C. Dr. e.g. E.g. E.G. "
    "Gen. Gov. i.e. I.e. I.E. Inc. Jr. Ltd. Md. Messrs. Mo. Mont. Mr. Mrs. Ms. p.m. Ph.D. Prof. "
    "Rep. Rev. Sen. St. vs. v.s. \\t \\n — ' \\\") <space> '' C++ ä. ö. ü."
)
_SPLIT = (
    "y'|all y|all how|'d|'y How|'d|'y not|'ve not|ve Not|'ve Not|ve can|not Can|not gon|na Gon|na "
    "got|ta Got|ta let|'s Let|'s c'm|on C'm|on"
)
_EMOTICONS = (
    ":) :-) :)) :-)) :))) :-))) (: (-: =) (= :] :-] [: [-: [= =] :o) (o: :} :-} 8) 8-) (-8 ;) ;-) "
    "(; (-; :( :-( :(( :-(( :((( :-((( ): )-: =( >:( :') :'-) :'( :'-( :/ :-/ =/ =| :| :-| ]= =[ "
    ":1 :P :-P :p :-p :O :-O :o :-o :0 :-0 :() >:o :* :-* :3 :-3 =3 :> :-> :X :-X :x :-x :D :-D "
    ";D ;-D =D xD XD xDD XDD 8D 8-D ^_^ ^__^ ^___^ >.< >.> <.< ._. ;_; -_- -__- v.v V.V v_v V_V "
    "o_o o_O O_o O_O 0_o o_0 0_0 o.O O.o O.O o.o 0.0 o.0 0.o @_@ <3 <33 <333 </3 (^_^) (-_-) "
    "(._.) (>_<) (*_*) (¬_¬) ಠ_ಠ ಠ︵ಠ (ಠ_ಠ) ¯\\(ツ)/¯ (╯°□°）╯︵┻━┻ ><(((*>"
)


def exceptions() -> dict[str, Parts]:
    """Text → the tokens that it becomes. Curly apostrophes as straight ones."""
    found = {"".join(parts): parts for parts in _listed()}
    for text in _AMBIGUOUS:
        found.pop(text, None)
        found.pop(text.title(), None)
    return found | {
        text.replace("'", "’"): tuple(part.replace("'", "’") for part in parts)
        for text, parts in found.items()
        if "'" in text
    }


def _listed() -> Iterator[Parts]:
    for lower in (*_contractions(), *_negations()):
        yield lower
        yield (lower[0].title(), *lower[1:])
    for stem in _DROPPED_G.split():
        yield from ((stem,), (stem.title(),), (stem + "'",), (stem.title() + "'",))
    for hour in range(1, 13):
        for half in ("a.m.", "am", "p.m.", "pm"):
            yield str(hour), half
    for letter in "abcdefghijklmnopqrstuvwxyz":
        yield (letter + ".",)
    for scale in "cfkCFK":
        yield "°", scale, "."
    for text in (*_SINGLE.split(), *_EMOTICONS.split()):
        yield (text,)
    for split in _SPLIT.split():
        yield tuple(split.split("|"))


def _with_and_without_apostrophe(stem: str, *endings: str) -> Iterator[Parts]:
    """`he`, `'ll`, `'ve` → he'll've and hellve."""
    yield (stem, *endings)
    yield (stem, *(ending.replace("'", "") for ending in endings))


def _contractions() -> Iterator[Parts]:
    yield from _with_and_without_apostrophe("i", "'m")
    yield "i", "'m", "a"
    yield "i", "m", "a"
    for stem in (*_PERSONS.split(), *_QUESTIONS.split()):
        for endings in (["'ll"], ["'ll", "'ve"], ["'d"], ["'d", "'ve"]):
            yield from _with_and_without_apostrophe(stem, *endings)
    are = [*(word for word in _QUESTIONS.split() if word not in _SINGULAR), "you", "we", "they"]
    for stem in are:
        yield from _with_and_without_apostrophe(stem, "'re")
        yield from _with_and_without_apostrophe(stem, "'ve")
    yield from _with_and_without_apostrophe("i", "'ve")
    for stem in (*(word for word in _QUESTIONS.split() if word not in _PLURAL), "he", "she", "it"):
        yield from _with_and_without_apostrophe(stem, "'s")
    for stem in _WITH_HAVE.split():
        yield from _with_and_without_apostrophe(stem, "'ve")


def _negations() -> Iterator[Parts]:
    for stem in (*_MODALS.split(), *_PLAIN_NEGATED.split()):
        yield stem, "n't"
        yield stem, "nt"
    for stem in _MODALS.split():
        yield stem, "n't", "'ve"
        yield stem, "nt", "ve"
