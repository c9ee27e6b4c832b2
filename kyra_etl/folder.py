"""A directory that behaves as a bucket: for `kyra demo`, for trying things out, and for tests.

A file's key is its path relative to the folder, with forward slashes; its etag is the SHA-256 of its bytes. It counts
as modified at the minute in its name, where CloudTrail's naming gives one: copying or cloning a folder changes every
file's own time, and would make the lag of old logs years. Files of other names keep their own time. A key is text where
a name need not be: `as_text` tells how it is written then.

Symbolic links are passed over, so that nothing outside the folder is ever listed or read.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from kyra_etl.cloudtrail.keys import named_minute, parse_key
from kyra_etl.errors import AccessError, CollectError, ObjectError, ObjectGone, UsageError
from kyra_etl.model import LogFile
from kyra_etl.ports import Clock

_ODD = re.compile(r"\\u(dc[89a-f][0-9a-f])")


def as_text(name: str) -> str:
    """A file's name or path as text; bytes that are no UTF-8 look like \\udce9, as the ledger would write them."""
    return name.encode(errors="backslashreplace").decode()


def as_path(text: str, folder: Path = Path()) -> Path:
    """The path, in `folder` if it is a relative one, that `as_text` made the text of."""
    path = folder / text
    return path if os.path.lexists(path) else folder / _ODD.sub(lambda odd: chr(int(odd[1], 16)), text)


def utc_now() -> datetime:
    """The machine's clock, naive UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


class FolderBucket:
    """A `ports.LogBucket` over a directory. Read-only; every listing sees the directory as it is then.

    Listing reads every file to hash it, once per modification: meant for thousands of files, not millions.
    """

    def __init__(self, path: Path | str, *, clock: Clock = utc_now) -> None:
        self.path = Path(os.path.abspath(path))
        self.name = self.path.as_uri()
        self._clock = clock
        self._etags: dict[tuple[str, int, int], str] = {}

    @classmethod
    def at(cls, url: str, *, clock: Clock = utc_now) -> FolderBucket:
        """The bucket that an integration names as "file:///some/folder"."""
        parts = urlsplit(url)
        if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise UsageError(f"{url!r} is not the address of a folder.", "Write it as file:///full/path/to/folder.")
        return cls(os.fsdecode(unquote_to_bytes(parts.path)), clock=clock)

    def folders(self, prefix: str) -> Iterator[str]:
        """The folders one level below `prefix` ("a/" → "a/b/") that hold a file at any depth, in key order."""
        base = prefix[: prefix.rfind("/") + 1]
        for entry in self._entries(base):
            key = f"{base}{as_text(entry.name)}/"
            if entry.is_dir(follow_symlinks=False) and key.startswith(prefix) and any(self._walk(key)):
                yield key

    def files(self, prefix: str, start_after: str = "") -> Iterator[LogFile]:
        """Every file below `prefix`, in key order (S3's: by UTF-8 bytes), from the first after `start_after`."""
        for key, entry in self._walk(prefix[: prefix.rfind("/") + 1], prefix):
            if key.encode() <= start_after.encode():
                continue
            try:
                stat = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # removed while we were listing: as if it had gone before
            about = parse_key(key, stat.st_size)
            yield LogFile(
                key=key,
                etag=self._etag(key, stat),
                size=stat.st_size,
                last_modified=named_minute(key) or datetime.fromtimestamp(stat.st_mtime, UTC).replace(tzinfo=None),
                account=about.account,
                region=about.region,
                day=about.day,
            )

    def read(self, key: str) -> bytes:
        """The file's bytes as stored. Raises ObjectGone, or ObjectError where it cannot be read."""
        try:
            return self._inside(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise ObjectGone(f"{key} is no longer in {self.path}.") from None
        except PermissionError:
            raise ObjectError("access_denied", f"{key} may not be read.", "Give yourself read permission.") from None
        except OSError as error:
            raise ObjectError("unreadable", f"{key} cannot be read: {_why(error)}.") from error

    def now(self) -> datetime:
        """The clock the bucket was made with; the machine's unless told otherwise."""
        return self._clock()

    def _walk(self, base: str, prefix: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
        for entry in self._entries(base):
            key = base + as_text(entry.name)
            if entry.is_dir(follow_symlinks=False):
                if f"{key}/".startswith(prefix) or prefix.startswith(f"{key}/"):
                    yield from self._walk(f"{key}/", prefix)
            elif entry.is_file(follow_symlinks=False) and key.startswith(prefix):
                yield key, entry

    def _entries(self, base: str) -> list[os.DirEntry[str]]:
        """What lies in a folder, in key order: a folder's slash counts, so "a.b" comes before "a/"."""
        try:
            folder = self._inside(base)
            with os.scandir(folder) as found:
                return sorted(found, key=lambda entry: as_text(entry.name) + "/" * entry.is_dir(follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            if not self.path.is_dir():
                what = "is a file, not a folder" if self.path.exists() else "does not exist"
                raise CollectError(f"{self.path} {what}.", "Name the folder that contains AWSLogs/.") from None
            return []  # S3 knows no missing folders, only prefixes without keys
        except PermissionError:
            raise AccessError(f"{self.path / base} may not be listed.", "Give yourself read permission.") from None
        except ObjectError:
            return []
        except OSError as error:
            raise CollectError(f"{self.path / base} cannot be listed: {_why(error)}.") from error

    def _inside(self, key: str) -> Path:
        """Where a key lies. Raises ObjectGone for one that leads out of the folder, by dots or by a link."""
        names = key.removesuffix("/").split("/") if key else []
        if {"", ".", ".."}.isdisjoint(names):
            path = as_path("/".join(names), self.path)
            if path.resolve() == self.path.resolve() / path.relative_to(self.path):
                return path
        raise ObjectGone(f"{key} is not inside {self.path}.")

    def _etag(self, key: str, stat: os.stat_result) -> str:
        known = (key, stat.st_size, stat.st_mtime_ns)
        if known not in self._etags:
            try:
                with open(as_path(key, self.path), "rb") as file:
                    self._etags[known] = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError:
                # Listed all the same: `read` says why, and the ledger quarantines it instead of losing it.
                return f"unreadable-{stat.st_size}-{stat.st_mtime_ns}"
        return self._etags[known]


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__
