"""Compiled kernels over batches of documents in one UTF-8 buffer (numba).

Layout of a batch: `buffer` uint8 [total bytes], `offsets` int64 [documents + 1]. Words of the whole
batch lie in flat arrays with `word_offsets` int64 [documents + 1]. A word is a maximal run of
non-whitespace characters, as `str.split` makes it; lengths count code points.

Compiled code is cached beside the source. The cache looks at the file of the function that is called, not
at those it calls in turn: after a change in `hashing` or `characters`, delete `__pycache__` here.
"""
