"""Slow, plain references for the rule values, written from the papers' definitions."""

import unicodedata
from collections import Counter

BULLETS = ("•", "‣", "●", "◦", "▪", "*", "-")
CLOSING = "\"'”’»)]"
TERMINAL = ".?!。？！"
STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}


def normalise(word: str) -> str:
    """Lower case, without punctuation and symbols at the ends; all of it when nothing else is there."""
    core = word
    while core and unicodedata.category(core[0])[0] in "PS":
        core = core[1:]
    while core and unicodedata.category(core[-1])[0] in "PS":
        core = core[:-1]
    return "".join(character.lower()[0] for character in core or word)


def ends_sentence(text: str) -> bool:
    return text.rstrip(CLOSING).endswith(tuple(TERMINAL))


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0


def _covered(words: list[str], starts: list[int], n: int) -> int:
    inside = {i for start in starts for i in range(start, start + n)}
    return sum(len(words[i]) for i in inside)


def _ngram_values(words: list[str]) -> dict[str, float]:
    normal = [normalise(word) for word in words]
    total = sum(map(len, words))
    values = {}
    for n in range(2, 11):
        grams = [tuple(normal[i : i + n]) for i in range(len(words) - n + 1)]
        counts = Counter(grams)
        top = max(counts.values(), default=0)
        if n <= 4:
            name = f"gopher.top_{n}_gram"
            frequent = [gram for gram, count in counts.items() if count == top and top > 1]
            covers = [_covered(words, [i for i, g in enumerate(grams) if g == gram], n) for gram in frequent]
            covered = max(covers, default=0)
        else:
            name = f"gopher.duplicate_{n}_grams"
            covered = _covered(words, [i for i, gram in enumerate(grams) if counts[gram] > 1], n)
        values[name] = _ratio(covered, total)
    return values


def _copies(items: list[str], sizes: list[int]) -> tuple[int, int]:
    """Number and characters of items that were there before."""
    seen: set[str] = set()
    number = characters = 0
    for item, size in zip(items, sizes, strict=True):
        if item in seen:
            number += 1
            characters += size
        seen.add(item)
    return number, characters


def reference_values(text: str) -> dict[str, float]:
    words = text.split()
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    paragraphs: list[list[str]] = [[]]
    for line in text.split("\n"):
        if line.strip():
            paragraphs[-1].append(line.strip())
        elif paragraphs[-1]:
            paragraphs.append([])
    paragraphs = [paragraph for paragraph in paragraphs if paragraph]
    sentences = 0
    for line in lines:
        line_words = line.split()
        sentences += sum(map(ends_sentence, line_words)) + (not ends_sentence(line_words[-1]))
    characters = sum(map(len, lines))
    line_copies, line_copy_characters = _copies(lines, [len(line) for line in lines])
    paragraph_copies, paragraph_copy_characters = _copies(
        ["\n".join(paragraph) for paragraph in paragraphs], [sum(map(len, p)) for p in paragraphs]
    )
    return {
        "gopher.word_count": len(words),
        "gopher.mean_word_length": _ratio(sum(map(len, words)), len(words)),
        "gopher.hash_ratio": _ratio(text.count("#"), len(words)),
        "gopher.ellipsis_ratio": _ratio(text.count("...") + text.count("…"), len(words)),
        "gopher.bullet_lines": _ratio(sum(line.startswith(BULLETS) for line in lines), len(lines)),
        "gopher.ellipsis_lines": _ratio(sum(line.endswith(("...", "…")) for line in lines), len(lines)),
        "gopher.alphabetic_words": _ratio(sum(any(map(str.isalpha, w)) for w in words), len(words)),
        "gopher.stop_words": len(STOP_WORDS & set(map(normalise, words))),
        "gopher.duplicate_lines": _ratio(line_copies, len(lines)),
        "gopher.duplicate_paragraphs": _ratio(paragraph_copies, len(paragraphs)),
        "gopher.duplicate_line_characters": _ratio(line_copy_characters, characters),
        "gopher.duplicate_paragraph_characters": _ratio(paragraph_copy_characters, characters),
        **_ngram_values(words),
        "c4.sentences": sentences,
        "c4.sentences@v1": sentences,
        "c4.long_lines": sum(len(line) >= 200 for line in lines),
        "c4.curly_bracket": text.count("{"),
        "c4.lorem_ipsum": text.lower().count("lorem ipsum"),
        "fineweb.terminal_lines": _ratio(sum(map(ends_sentence, lines)), len(lines)),
        "fineweb.duplicate_line_characters": _ratio(line_copy_characters, characters),
        "fineweb.duplicate_line_characters@appendix": _ratio(line_copy_characters, characters),
        "fineweb.short_lines": _ratio(sum(len(line) < 30 for line in lines), len(lines)),
        "fineweb.newlines_per_word": _ratio(text.count("\n"), len(words)),
    }
