"""Files of the lake on a local directory or on S3: write, publish, list, remove. Paths are relative to the lake.

On S3, writing goes through pyarrow's own file system; DuckDB reads through s3fs, because the wheel carries no S3
extension.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from kyra_etl.errors import LakeError
from kyra_etl.lake.faults import telling
from kyra_etl.lake.parquet import ParquetFile, writing

ZSTD_LEVEL = 3

MOVES_AT_ONCE = 16
"""Objects of S3 that are moved at the same time: each takes two or three requests."""


@dataclass(frozen=True, slots=True)
class S3Options:
    """How to reach the lake's own bucket; empty means the environment's usual AWS settings."""

    endpoint_url: str | None = None
    region: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)


class Storage(ABC):
    """A place for the lake's files. Methods raise LakeError."""

    @abstractmethod
    def uri(self, path: str) -> str:
        """What a reader opens: an absolute path, or s3://bucket/…"""

    @abstractmethod
    def parquet(self, path: str, schema: pa.Schema, **options: Any) -> AbstractContextManager[ParquetFile]:
        """Write a Parquet file piece by piece; when the block ends it is whole and durable, and its size known."""

    def write_parquet(self, path: str, table: pa.Table, **options: Any) -> int:
        """Write a table as a Parquet file durably and return its size in bytes."""
        with self.parquet(path, table.schema, **options) as file:
            file.write(table)
        return file.size

    @abstractmethod
    def move(self, source: str, target: str) -> bool:
        """Put `source` at `target`, replacing it; done already (no source, but a target) is fine and returns False."""

    @abstractmethod
    def put_aside(self, paths: Sequence[str], folder: str) -> None:
        """Move files below `folder`, keeping their paths there; those that are gone are fine."""

    @abstractmethod
    def exists(self, path: str) -> bool: ...

    @abstractmethod
    def size(self, path: str) -> int | None:
        """Bytes of a file; None when there is none."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Remove a file; one that is gone already is fine."""

    @abstractmethod
    def folders(self, path: str) -> list[str]:
        """Names of the folders right below `path`; none when it does not exist."""

    @abstractmethod
    def sizes(self, path: str) -> dict[str, int]:
        """Every file below `path`, with its size in bytes; none when it does not exist."""

    @abstractmethod
    def older(self, path: str, before: datetime) -> list[str]:
        """The files below `path` that were last written before then, naive UTC."""

    @abstractmethod
    def scratch(self, path: str) -> str:
        """A new local folder for what does not fit into memory; whoever writes to `path` removes it."""

    @abstractmethod
    def remove_folder(self, path: str) -> None:
        """Remove a folder and all it holds; one that is gone already is fine."""

    @abstractmethod
    def create_text(self, path: str, text: str) -> str:
        """Write a small text file unless it exists, and return what it holds afterwards."""

    @abstractmethod
    def filesystem(self) -> tuple[pafs.FileSystem, str]:
        """A pyarrow file system and the lake's root in it."""

    def register(self, connection: Any) -> None:
        """Make `uri()` readable to a DuckDB connection."""
        return None


class LocalStorage(Storage):
    """A directory."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()

    def uri(self, path: str) -> str:
        return str(self.root / path)

    @contextlib.contextmanager
    def parquet(self, path: str, schema: pa.Schema, **options: Any) -> Iterator[ParquetFile]:
        target = self.root / path
        with telling(f"write {target}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            stream = target.open("wb")
        with stream, writing(path, stream, schema, options) as file:
            yield file
            with telling(f"write {target}"):
                file.close()
                stream.flush()
                os.fsync(stream.fileno())
                file.size = stream.tell()

    def move(self, source: str, target: str) -> bool:
        old, new = self.root / source, self.root / target
        with telling(f"publish {new}"):
            new.parent.mkdir(parents=True, exist_ok=True)
            try:
                old.replace(new)
            except FileNotFoundError:
                if new.exists():
                    return False
                raise
            _sync_folder(new.parent)
            return True

    def put_aside(self, paths: Sequence[str], folder: str) -> None:
        with telling(f"move files to {self.root / folder}"):
            targets = {path: self.root / folder / path for path in paths}
            for parent in {target.parent for target in targets.values()}:
                parent.mkdir(parents=True, exist_ok=True)
            for path, target in targets.items():
                with contextlib.suppress(FileNotFoundError):
                    (self.root / path).replace(target)
            # Once a folder, not once a file: there may be thousands. What was here must not be back after a power cut.
            for parent in {place.parent for path, target in targets.items() for place in (self.root / path, target)}:
                if parent.is_dir():
                    _sync_folder(parent)

    def exists(self, path: str) -> bool:
        return (self.root / path).exists()

    def size(self, path: str) -> int | None:
        with telling(f"look at {self.root / path}"), contextlib.suppress(FileNotFoundError):
            return (self.root / path).stat().st_size
        return None

    def remove(self, path: str) -> None:
        with telling(f"remove {self.root / path}"):
            (self.root / path).unlink(missing_ok=True)

    def folders(self, path: str) -> list[str]:
        folder = self.root / path
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []

    def sizes(self, path: str) -> dict[str, int]:
        with telling(f"list {self.root / path}"):
            return {file: found.st_size for file, found in self._below(path)}

    def older(self, path: str, before: datetime) -> list[str]:
        with telling(f"list {self.root / path}"):
            moment = before.replace(tzinfo=UTC).timestamp()
            return [file for file, found in self._below(path) if found.st_mtime < moment]

    def _below(self, path: str) -> Iterator[tuple[str, os.stat_result]]:
        """Every file below `path`; without those that somebody else moves away at that moment, and their folders."""

        def failed(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise error

        for folder, _, names in os.walk(self.root / path, onerror=failed):
            place = PurePath(folder).relative_to(self.root)
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    yield (place / name).as_posix(), os.stat(f"{folder}/{name}")

    def scratch(self, path: str) -> str:
        folder = self.root / path  # where the result has to fit as well, and swept with what is staged there
        with telling(f"make {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    def remove_folder(self, path: str) -> None:
        shutil.rmtree(self.root / path, ignore_errors=True)

    def create_text(self, path: str, text: str) -> str:
        target = self.root / path
        with telling(f"write {target}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = target.with_name(f"{target.name}.{os.getpid()}")
            draft.write_text(text)
            try:
                # A hard link appears whole or not at all, and never replaces what another process put there first.
                os.link(draft, target)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
            return target.read_text()

    def filesystem(self) -> tuple[pafs.FileSystem, str]:
        return pafs.LocalFileSystem(), str(self.root)


class S3Storage(Storage):
    """A bucket, or a prefix in one."""

    def __init__(self, url: str, options: S3Options) -> None:
        self.root = url.removeprefix("s3://").rstrip("/")
        self._options = options
        arguments: dict[str, Any] = {
            "access_key": options.access_key,
            "secret_key": options.secret_key,
            "session_token": options.session_token,
            "region": options.region,
        }
        if options.endpoint_url:
            scheme, _, host = options.endpoint_url.partition("://")
            arguments |= {"scheme": scheme, "endpoint_override": host.rstrip("/")}
        self._fs = pafs.S3FileSystem(**{name: value for name, value in arguments.items() if value})

    def uri(self, path: str) -> str:
        return f"s3://{self.root}/{path}"

    def _at(self, path: str) -> str:
        return f"{self.root}/{path}"

    @contextlib.contextmanager
    def parquet(self, path: str, schema: pa.Schema, **options: Any) -> Iterator[ParquetFile]:
        what = f"write {self.uri(path)}"
        with contextlib.ExitStack() as opened:
            with telling(what):
                stream = opened.enter_context(self._fs.open_output_stream(self._at(path)))
            with writing(path, stream, schema, options) as file:
                yield file
                with telling(what):
                    file.close()
                    # Not asked of S3 afterwards: of a writer that was too slow, somebody may have swept it already.
                    file.size = int(stream.tell())
            with telling(what):
                opened.close()

    def move(self, source: str, target: str) -> bool:
        with telling(f"publish {self.uri(target)}"):
            try:
                self._fs.copy_file(self._at(source), self._at(target))
            except OSError:
                if self.exists(target) and not self.exists(source):
                    return False
                raise
            # Two runs may publish the same file at once: either copy is whole, and either may delete first.
            with contextlib.suppress(FileNotFoundError):
                self._fs.delete_file(self._at(source))
            return True

    def put_aside(self, paths: Sequence[str], folder: str) -> None:
        def aside(path: str) -> None:
            try:
                self.move(path, f"{folder}/{path}")
            except LakeError:
                if self.exists(path):
                    raise

        with ThreadPoolExecutor(MOVES_AT_ONCE) as pool:
            list(pool.map(aside, paths))

    def exists(self, path: str) -> bool:
        with telling(f"look at {self.uri(path)}"):
            return bool(self._fs.get_file_info(self._at(path)).type == pafs.FileType.File)

    def size(self, path: str) -> int | None:
        with telling(f"look at {self.uri(path)}"):
            found = self._fs.get_file_info(self._at(path))
            return int(found.size) if found.type == pafs.FileType.File else None

    def remove(self, path: str) -> None:
        with telling(f"remove {self.uri(path)}"):
            if self.exists(path):
                self._fs.delete_file(self._at(path))

    def folders(self, path: str) -> list[str]:
        with telling(f"list {self.uri(path)}"):
            entries = self._fs.get_file_info(pafs.FileSelector(self._at(path), allow_not_found=True))
            return sorted(entry.base_name for entry in entries if entry.type == pafs.FileType.Directory)

    def sizes(self, path: str) -> dict[str, int]:
        return {file: int(entry.size) for file, entry in self._below(path)}

    def older(self, path: str, before: datetime) -> list[str]:
        moment = before.replace(tzinfo=UTC).timestamp() * 1e9
        return [file for file, entry in self._below(path) if entry.mtime_ns < moment]

    def _below(self, path: str) -> Iterator[tuple[str, pafs.FileInfo]]:
        with telling(f"list {self.uri(path)}"):
            entries = self._fs.get_file_info(pafs.FileSelector(self._at(path), recursive=True, allow_not_found=True))
        files = (entry for entry in entries if entry.type == pafs.FileType.File)
        return ((entry.path.removeprefix(f"{self.root}/"), entry) for entry in files)

    def scratch(self, path: str) -> str:
        with telling("make a temporary folder"):
            return tempfile.mkdtemp(prefix="kyra-")

    def remove_folder(self, path: str) -> None:
        # Not file by file: that would leave the empty objects behind that stand for folders.
        with telling(f"remove {self.uri(path)}"), contextlib.suppress(FileNotFoundError):
            self._fs.delete_dir(self._at(path))

    def create_text(self, path: str, text: str) -> str:
        with telling(f"write {self.uri(path)}"):
            if not self.exists(path):
                with self._fs.open_output_stream(self._at(path)) as stream:
                    stream.write(text.encode())
            with self._fs.open_input_stream(self._at(path)) as stream:
                return str(stream.read().decode())

    def filesystem(self) -> tuple[pafs.FileSystem, str]:
        return self._fs, self.root

    def register(self, connection: Any) -> None:
        import s3fs

        options = self._options
        client = {"region_name": options.region} if options.region else {}
        connection.register_filesystem(
            s3fs.S3FileSystem(
                key=options.access_key,
                secret=options.secret_key,
                token=options.session_token,
                endpoint_url=options.endpoint_url,
                client_kwargs=client,
                use_listings_cache=False,
                skip_instance_cache=True,
            )
        )


def open_storage(url: str, options: S3Options | None = None) -> Storage:
    """The storage behind a directory's path or an s3://bucket/prefix URL."""
    if url.startswith("s3://"):
        if not url.removeprefix("s3://").strip("/"):
            raise LakeError(f"The lake's URL {url!r} names no bucket.", "Write it as s3://bucket/prefix.")
        return S3Storage(url, options or S3Options())
    return LocalStorage(Path(url))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def marker(state_id: str) -> str:
    """The text of `_kyra.json`."""
    return json.dumps({"state": state_id, "format": 1}) + "\n"


def owner(text: str) -> Mapping[str, Any]:
    """What `_kyra.json` says; empty when it is not ours to read."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
