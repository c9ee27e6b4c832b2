"""The corpus: every detection there is, the built-in ones and the user's own."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kyra_etl.detection.frontmatter import Attack, Detection, Param, fits, parse
from kyra_etl.errors import ConfigError, DetectionError, UnknownName

__all__ = ["Attack", "Corpus", "Detection", "Param", "Problem", "parse", "tuned"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A detection file that cannot be used, and why. The others go on."""

    detection: str
    path: str
    error: DetectionError
    disabled: bool = False

    def __str__(self) -> str:
        return str(self.error)


@dataclass(frozen=True, slots=True)
class Corpus:
    """The detections in force, by id; `disabled` ones are known but never run, `problems` could not be read."""

    detections: tuple[Detection, ...] = ()
    problems: tuple[Problem, ...] = ()
    disabled: tuple[Detection, ...] = ()

    @classmethod
    def load(
        cls,
        dirs: Sequence[Path],
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        disable: Collection[str] = (),
    ) -> Corpus:
        """Read `<dir>/<group>/<id>.sql` of every folder (also `<dir>/<id>.sql`); one that does not exist holds none.

        `settings` are params' values, by detection id and param's name. A broken file becomes a problem. Raises
        ConfigError for settings of a detection or param that does not exist, or of another type.
        """
        found: dict[str, Detection] = {}
        problems: list[Problem] = []
        for path in _files(dirs):
            try:
                detection = parse(_read(path), id=path.stem, group=path.parent.name, path=str(path))
                if path.stem in found:
                    first = found[path.stem].path
                    raise DetectionError(f"{path}:1: {first} is called {path.stem} too.", "Rename one of them.")
            except DetectionError as error:
                problems.append(Problem(path.stem, str(path), error))
            except Exception as error:  # whatever somebody's file brings about, it is that file's alone
                what = f"{path}:1: cannot be read: {type(error).__name__}: {error}.".replace("\n", " ")
                problems.append(Problem(path.stem, str(path), DetectionError(what, "Mend or remove the file.")))
            else:
                found[detection.id] = detection
        known = {*found, *(problem.detection for problem in problems)}
        for name in (*(settings or {}), *disable):
            if name not in known:
                raise ConfigError(f"The settings name a detection {name} that does not exist.", _meant(name, known))
        ready = [tuned(found[name], (settings or {}).get(name, {})) for name in sorted(found)]
        return cls(
            detections=tuple(each for each in ready if each.id not in disable),
            problems=tuple(replace(each, disabled=each.detection in disable) for each in problems),
            disabled=tuple(each for each in ready if each.id in disable),
        )

    def get(self, id: str) -> Detection:
        """The detection of that id, disabled or not. Raises UnknownName, or what is wrong with its file."""
        for detection in (*self.detections, *self.disabled):
            if detection.id == id:
                return detection
        for problem in self.problems:
            if problem.detection == id:
                raise problem.error
        raise UnknownName(f"There is no detection {id}.", _meant(id, [each.id for each in self.detections]))

    def for_events(self, names: Collection[str | None]) -> tuple[str, ...]:
        """Ids of the detections that events of these names can make fire; files that cannot be read may be any."""
        present = {name for name in names if name is not None}
        waking = [detection.id for detection in self.detections if detection.concerns(present)]
        known = {detection.id for detection in (*self.detections, *self.disabled)}
        return (*waking, *sorted({each.detection for each in self.problems if not each.disabled} - known))


def _files(dirs: Iterable[Path]) -> Iterable[Path]:
    for folder in dirs:
        yield from sorted((*folder.glob("*.sql"), *folder.glob("*/*.sql")))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DetectionError(f"{path}:1: cannot be read: {why}.", "Mend or remove the file.") from None


def tuned(detection: Detection, settings: Mapping[str, Any]) -> Detection:
    """The detection with these values of its params; raises ConfigError for one it has not, or of another type."""
    params = dict(detection.params)
    for name, value in settings.items():
        if name not in params:
            raise ConfigError(f"The detection {detection.id} has no param {name}.", _meant(name, params))
        param = params[name]
        if not fits(param, value):
            raise ConfigError(
                f"detections.{detection.id}.{name} must be of type {param.type}.", f"Its default is {param.default!r}."
            )
        params[name] = replace(param, value=value)
    return replace(detection, params=params)


def _meant(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(names) or 'none'}."
