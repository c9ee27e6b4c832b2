"""Files of the lake move while they are read: another run publishes one, a compaction replaces it."""

TRIES = 5
"""How often the lake's files are listed and read, while somebody keeps moving them."""


def has_left(error: BaseException) -> bool:
    """Whether a file is not, or no longer, where it was. S3 says so in words of its own once it has been opened."""
    return isinstance(error, FileNotFoundError) or any(
        code in str(error) for code in ("AWS Error NO_SUCH_KEY", "AWS Error RESOURCE_NOT_FOUND")
    )
