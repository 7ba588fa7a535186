"""Which languages curation keeps, and how sure the identifier must be of each."""

import difflib
from collections.abc import Iterable, Mapping

from pydantic import Field, field_validator, model_validator

from bessemer.config import Config

_CODES = """
af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv
cy da de diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr hsb ht
hu hy ia id ie ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai
mg mhr min mk ml mn mr mrj ms mt mwl my myv mzn nah nap nds ne new nl nn no oc or os pa pam pfl pl pms
pnb ps pt qu rm ro ru rue sa sah sc scn sco sd sh si sk sl so sq sr su sv sw ta te tg th tk tl tr tt
tyv ug uk ur uz vec vep vi vls vo wa war wuu xal xmf yi yo yue zh
"""
LANGUAGE_CODES = tuple(_CODES.split())
"""What fastText's lid.176 tells apart: ISO 639-1 codes where there is one, else ISO 639-3 or Wikipedia's."""
_NORWEGIAN = "no"
"""YAML 1.1 reads a bare `no` as false."""


class LanguageConfig(Config):
    """Languages to keep, with the least probability of the identified language."""

    languages: tuple[str, ...] = ("en",)
    """Codes to keep, such as en, de or zh (all of them: `language_config.LANGUAGE_CODES`); empty keeps all,
    whatever their score but for `language_scores`."""
    min_language_score: float = Field(default=0.65, ge=0, le=1)
    """Least probability of the identified language (FineWeb: 0.65)."""
    language_scores: Mapping[str, float] = {}
    """Other least probabilities by code, such as `{de: 0.5, sw: 0.3}`: one figure does not suit all
    languages, for close relatives (Norwegian and Danish, Serbian and Croatian) share theirs."""

    @field_validator("languages", mode="before")
    @classmethod
    def _norwegian_in_a_list(cls, value: object) -> object:
        if not isinstance(value, list | tuple):
            return value
        return tuple(_NORWEGIAN if code is False else code for code in value)

    @field_validator("language_scores", mode="before")
    @classmethod
    def _norwegian_in_a_mapping(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        return {_NORWEGIAN if code is False else code: score for code, score in value.items()}

    @model_validator(mode="after")
    def _languages_are_known(self) -> "LanguageConfig":
        faults = [*_unknown("languages", self.languages), *_unknown("language_scores", self.language_scores)]
        for code, score in self.language_scores.items():
            if not 0 <= score <= 1:
                faults.append(f"language_scores: {code} is {score:g}, but a probability is from 0 to 1")
            if self.languages and code in LANGUAGE_CODES and code not in self.languages:
                faults.append(f"language_scores: {code} is not among languages, so it is never kept: add it")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def least_score(self, code: str) -> float:
        """Least probability of a language: its own, else the general one where languages are chosen."""
        return self.language_scores.get(code, self.min_language_score if self.languages else 0.0)


def _unknown(field: str, codes: Iterable[str]) -> list[str]:
    faults = []
    for code in codes:
        if code not in LANGUAGE_CODES:
            near = difflib.get_close_matches(code.lower(), LANGUAGE_CODES, n=1, cutoff=0.0)
            faults.append(f"{field}: unknown language {code!r} (nearest: {near[0]!r})")
    return faults
