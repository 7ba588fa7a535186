"""Word lists that a user brings: a text file with a word or phrase a line."""

from pathlib import Path

from bessemer.errors import ConfigError

MAX_BYTES = 4 << 20
"""Larger files are no word lists."""
MAX_PHRASE_CHARACTERS = 200


def read_word_list(path: str) -> tuple[str, ...]:
    """The lines of a UTF-8 file, stripped; blank ones and those that begin with `#` are left out.

    The words become part of the config, so that its digest covers them and workers need no file. Raises
    ConfigError when the file cannot be read or is no word list.
    """
    file = Path(path).expanduser()
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ConfigError(f"word list {path}: above {MAX_BYTES:,} bytes")
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"word list {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"word list {path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    words = [line.strip() for line in text.splitlines()]
    words = [word for word in words if word and not word.startswith("#")]
    for word in words:
        if len(word) > MAX_PHRASE_CHARACTERS:
            raise ConfigError(
                f"word list {path}: {word[:40]!r}… is longer than {MAX_PHRASE_CHARACTERS} characters"
            )
    if not words:
        raise ConfigError(f"word list {path}: holds no words")
    return tuple(words)
