"""Arrays that grow on disk, batch by batch."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_HEADER_BYTES = 128
"""Room for the header, which says how many rows there are and so is written last."""


class NpyAppender:
    """An .npy file (format 1.0) that grows: rows of one dtype and width are appended, none are held."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._file.write(b"\0" * _HEADER_BYTES)
        self._num_rows = 0
        self._row_shape: tuple[int, ...] = ()
        self._dtype: np.dtype | None = None

    def append(self, rows: NDArray) -> None:
        """Add rows; all must have the shape beyond the first axis and the dtype of the first ones."""
        if self._dtype is None:
            self._dtype, self._row_shape = rows.dtype, rows.shape[1:]
        assert (rows.dtype, rows.shape[1:]) == (self._dtype, self._row_shape), "rows of another kind"
        self._num_rows += len(rows)
        self._file.write(np.ascontiguousarray(rows).data)

    def close(self) -> None:
        """Write the header: magic, version, length, a literal padded with spaces to a newline."""
        assert self._dtype is not None, "nothing was appended, not even an empty array"
        fields = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._num_rows, *self._row_shape),
        }
        prefix = np.lib.format.magic(1, 0)
        length = _HEADER_BYTES - len(prefix) - 2
        literal = repr(fields).encode("latin-1").ljust(length - 1) + b"\n"
        assert len(literal) == length, "the header does not fit into its room"
        self._file.seek(0)
        self._file.write(prefix + length.to_bytes(2, "little") + literal)
        self._file.close()

    def abandon(self) -> None:
        self._file.close()
