"""Files of the lake move while they are read: another run publishes one, a compaction replaces it."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow.fs as pafs

TRIES = 5
"""How often the lake's files are listed and read, while somebody keeps moving them."""


def has_left(error: BaseException, filesystem: pafs.FileSystem, paths: Iterable[str]) -> bool:
    """Whether one of these files is not, or no longer, where it was, and reading failed for that.

    They are looked for anew: once a file has been opened, S3 says that it is gone as errors of many kinds.
    """
    if isinstance(error, FileNotFoundError):
        return True
    try:
        return any(found.type == pafs.FileType.NotFound for found in filesystem.get_file_info(list(paths)))
    except OSError:
        return False
