"""The lake's storage and the state database of one process, with a step before and after every call.

They are the real adapters: SQLite in a file, Parquet in a directory. On the "s3" lake the real `S3Storage` talks to a
file system that behaves as S3 does (no rename, whole objects or none).
"""

from __future__ import annotations

import itertools
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
from sqlalchemy import Connection

from kyra_etl import owner
from kyra_etl.errors import LakeError, StateError
from kyra_etl.lake import Lake, layout
from kyra_etl.lake.parquet import ParquetFile
from kyra_etl.lake.storage import LocalStorage, S3Storage, Storage
from kyra_etl.state.database import Database
from tests.simulation.process import Process

Published = Callable[[str, str], None]
"""Told of every file that is moved to where readers look: (from, to)."""


class SimDatabase(Database):
    """The state database as one process reaches it, on simulated time.

    Processes share the connections of one real Database: compiling every statement anew for each of them would take
    most of the time. A killed one's transaction is rolled back, as the server or the file's lock would see to.
    """

    def __init__(self, real: Database, process: Process) -> None:
        self.__dict__.update(real.__dict__)
        self._process = process

    @contextmanager
    def read(self) -> Iterator[Connection]:
        self._process.step("read state")
        with super().read() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        process, name = self._process, _caller()
        process.step(name)
        process.fault("state", {"unreachable": lambda: StateError(f"The database was gone before {name}.")})
        with super().write() as connection:
            yield connection
            process.step(name, "inside")
        process.step(name, "after")
        process.fault("state", {"no answer": lambda: StateError(f"The database was gone after {name}.")})

    def clock(self, connection: Connection) -> datetime:
        return self._process.fate.timeline.now


def _caller() -> str:
    """The method whose transaction it is: the first frame that is not ours or contextlib's."""
    frame = sys._getframe(2)
    while frame.f_code.co_filename.endswith("contextlib.py"):
        frame = frame.f_back  # type: ignore[assignment]
    return frame.f_code.co_name.strip("_")


def is_data(path: str) -> bool:
    """Whether a path of the lake is that of a batch's file, staged or published, and not a table of our own."""
    if path.startswith(f"{layout.STAGING_DIR}/"):
        return not path.startswith(f"{layout.STAGING_DIR}/{layout.TABLES_STAGING}/")
    return path.startswith((layout.EVENTS_DIR, layout.ACTIVITY_DIR, layout.MALFORMED_DIR))


class SimDirectory(LocalStorage):
    """A lake in a directory."""

    def __init__(self, root: Path, process: Process, published: Published) -> None:
        super().__init__(root)
        self._process, self._published = process, published

    @contextmanager
    def parquet(self, path: str, schema: Any, **options: Any) -> Iterator[ParquetFile]:
        process = self._process
        step = "stage" if is_data(path) else "write table"
        process.step(step)
        process.fault("lake", {"disk full": lambda: LakeError(f"No space for {path}.")})
        with super().parquet(path, schema, **options) as file:
            yield file
        try:
            process.step(step, "torn")
        except BaseException:
            written = self.root / path
            if written.exists():  # unless it was swept meanwhile
                written.write_bytes(written.read_bytes()[: file.size // 2])
            raise
        process.step(step, "after")

    def move(self, source: str, target: str) -> bool:
        step = "publish" if is_data(target) else "place table"
        with self._process.stepping(step):
            self._process.fault("lake", {"refused": lambda: LakeError(f"{target} may not be written.")})
            moved = super().move(source, target)
            if moved and step == "publish":
                self._published(source, target)
        return moved

    def put_aside(self, paths: Sequence[str], folder: str) -> None:
        with self._process.stepping("retire"):
            self._process.fault("lake", {"refused": lambda: LakeError("The files may not be moved.")})
            for number, path in enumerate(paths):
                if number:
                    self._process.step("retire", "torn")
                super().put_aside([path], folder)

    def remove(self, path: str) -> None:
        with self._process.stepping("remove"):
            super().remove(path)

    def folders(self, path: str) -> list[str]:
        self._process.step("list staging")
        return super().folders(path)

    def exists(self, path: str) -> bool:
        self._process.step("look")
        return super().exists(path)

    def remove_folder(self, path: str) -> None:
        process = self._process
        process.step("discard")
        files = [file for file in (self.root / path).rglob("*") if file.is_file()]
        if files:
            try:
                process.step("discard", "torn")
            except BaseException:
                files[0].unlink(missing_ok=True)
                raise
        super().remove_folder(path)
        process.step("discard", "after")

    def filesystem(self) -> tuple[pafs.FileSystem, str]:
        self._process.step("read lake")
        return super().filesystem()

    def register(self, connection: Any) -> None:
        self._process.step("detect")


class _ObjectStore:
    """The calls of pyarrow's file system that S3Storage makes, over a directory, with S3's ways."""

    def __init__(self, root: Path, process: Process, published: Published) -> None:
        self._real = pafs.LocalFileSystem()
        self._root, self._process, self._published = str(root), process, published
        self._uploads = itertools.count()

    @contextmanager
    def open_output_stream(self, path: str) -> Iterator[Any]:
        step = "stage" if is_data(self._relative(path)) else "write table"
        self._process.step(step)
        self._process.fault("lake", {"slow down": lambda: LakeError(f"The store is busy with {path}.")})
        draft = Path(self._root) / f"upload-{id(self)}-{next(self._uploads)}"  # an upload appears when it is complete
        with self._real.open_output_stream(str(draft)) as stream:
            yield stream
        self._make_room(path)
        draft.replace(path)
        self._process.step(step, "after")

    def copy_file(self, source: str, target: str) -> None:
        into = self._relative(target)
        aside = into.startswith(f"{layout.REPLACED_DIR}/")
        step = "publish" if is_data(into) else "retire" if aside else "place table"
        with self._process.stepping(step):
            self._process.fault("lake", {"slow down": lambda: LakeError(f"The store is busy with {target}.")})
            if not Path(source).exists():
                raise FileNotFoundError(2, "No such key", source)
            self._make_room(target)
            shutil.copyfile(source, target)
            if step == "publish":
                self._published(self._relative(source), self._relative(target))

    def delete_file(self, path: str) -> None:
        with self._process.stepping("unstage"):
            self._real.delete_file(path)

    def delete_dir(self, path: str) -> None:
        with self._process.stepping("discard"):
            if not Path(path).exists():
                raise FileNotFoundError(2, "No such prefix", path)
            for file in sorted(Path(path).rglob("*")):
                if file.is_file():
                    self._process.step("discard", "torn")
                    file.unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)

    def get_file_info(self, what: Any) -> Any:
        self._process.step("list staging" if isinstance(what, pafs.FileSelector) else "look")
        return self._real.get_file_info(what)

    def _relative(self, path: str) -> str:
        return path.removeprefix(f"{self._root}/")

    @staticmethod
    def _make_room(path: str) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)


class SimS3(S3Storage):
    """A lake on S3: the real storage over an object store of ours."""

    def __init__(self, root: Path, process: Process, published: Published) -> None:
        self.root = str(root)
        self._fs = _ObjectStore(root, process, published)
        self._process = process

    def uri(self, path: str) -> str:
        return f"{self.root}/{path}"

    def filesystem(self) -> tuple[pafs.FileSystem, str]:
        self._process.step("read lake")
        return pafs.LocalFileSystem(), self.root

    def register(self, connection: Any) -> None:
        self._process.step("detect")


def lake_of(kind: str, root: Path, process: Process, published: Published) -> Lake:
    storage: Storage = (SimS3 if kind == "s3" else SimDirectory)(root, process, published)
    return Lake(storage)


class Inline(Executor):
    """Does at once what a pool of threads would do sometime: the order of steps is the seed's alone."""

    def __init__(self, *_: Any, **__: Any) -> None:
        return None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # but not a death: the dead submit nothing more
            future.set_exception(error)
        return future

    def map(self, fn: Callable[..., Any], *iterables: Any, **_: Any) -> Iterator[Any]:
        return map(fn, *iterables)


here = threading.local()
"""`here.process` is whose turn it is."""


@contextmanager
def one_machine_many_processes() -> Iterator[None]:
    """Let simulated processes pass for real ones: owners' names, and knowing that one has died."""
    everybody: list[Process] = []

    def owner_of(run_id: str) -> str:
        process: Process = here.process
        if process not in everybody:
            everybody.append(process)
        return f"{run_id} {process.machine} {everybody.index(process)} 1"

    def is_gone(name: str) -> bool:
        _, machine, number, _ = name.split(" ")
        other = everybody[int(number)]
        return machine == here.process.machine and (other.dead or other.over)

    swaps = {owner.owner_of: owner_of, owner.is_gone: is_gone}
    swaps |= {_threads(): Inline}
    undo = []
    for name, module in list(sys.modules.items()):
        if name.startswith("kyra_etl."):
            for attribute, value in list(vars(module).items()):
                if callable(value) and getattr(value, "__hash__", None) and value in swaps:
                    undo.append((module, attribute, value))
                    setattr(module, attribute, swaps[value])
    try:
        yield
    finally:
        for module, attribute, value in undo:
            setattr(module, attribute, value)


def _threads() -> type[Executor]:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor
