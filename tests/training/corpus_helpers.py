"""Token splits in memory, for tests of data order."""

import numpy as np

from bessemer.formats.tokens import TokenSplit


def split_of(lengths, first_id=0, name="d") -> TokenSplit:
    """Documents of these lengths whose tokens are numbered through, so that every token is unique."""
    lengths = np.asarray(lengths, dtype=np.int64)
    total = int(lengths.sum())
    return TokenSplit(
        shards=[np.arange(first_id, first_id + total)],
        shard_of=np.zeros(len(lengths), dtype=np.int32),
        offsets=np.cumsum(lengths) - lengths,
        lengths=lengths,
        num_bytes=lengths * 4,
        document_ids=[f"{name}{number}" for number in range(len(lengths))],
        vocab_size=first_id + total,
    )


def web_like_lengths(num_documents=3000, seed=0):
    """Lengths as on the web: a log-normal around 500 tokens with a long tail."""
    draw = np.random.Generator(np.random.Philox(seed))
    return np.maximum(2, np.exp(draw.normal(6.2, 1.1, num_documents)).astype(int))
