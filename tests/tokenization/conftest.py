import pytest

from bessemer.tokenization.tokenizer import Tokenizer, train_bpe

TEXTS = (
    "Return the greatest common divisor of the integers a and b.",
    "def read_csv(path, sep=','):\n    return [row.split(sep) for row in open(path)]",
    "Über 1234 naïve cafés: 3.14159!  Two  spaces\tand tabs\r\nand line ends.\n\n",
    "user assistant system\nuser\nassistant\n",
    "The quick brown fox jumps over the lazy dog, again and again and again.",
)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A vocabulary of 400 with real merges."""
    return train_bpe(iter(TEXTS * 20), 400)
