"""Inputs and outputs of a run over many files."""

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from live_seg.errors import SourceError, UsageError
from live_seg.files import check_folder, check_target, expand_user
from live_seg.sources.image_files import READABLE_SUFFIXES
from live_seg.urls import redacted


@dataclass(frozen=True)
class Job:
    """One input and the files to write from it."""

    source: str
    video: Path | None
    json: Path | None
    store: str | None = None
    """URL of the folder that the files are written to once they are complete; None for their own folders."""

    @property
    def uploads(self) -> dict[Path, str]:
        """The URL that each of the files is written to."""
        return {} if self.store is None else {path: f"{self.store}/{path.name}" for path in self.outputs}

    @property
    def outputs(self) -> tuple[Path, ...]:
        """The files to write."""
        return tuple(path for path in (self.video, self.json) if path is not None)


def expand(specs: Sequence[str]) -> list[str]:
    """Return `specs` with each pattern of local videos ("in/*.mp4") replaced by the files that match, sorted.

    Patterns of images and names of existing files are kept. Raises SourceError if nothing matches.
    """
    expanded: list[str] = []
    for spec in specs:
        path = expand_user(spec)
        is_pattern = "://" not in spec and glob.has_magic(spec) and not path.exists()
        if not is_pattern or path.suffix.lower() in READABLE_SUFFIXES:
            expanded.append(spec)
            continue
        found = sorted(name for name in glob.glob(str(path), recursive=True) if Path(name).is_file())  # noqa: PTH207 - may be absolute
        if not found:
            raise SourceError(f"No file matches {redacted(spec)}.")
        expanded += found
    return expanded


def jobs_for(sources: Sequence[str], output: Path | None, json: Path | None, *, suffix: str) -> list[Job]:
    """Return a job for each of `sources`: OUTPUT/STEM + `suffix`, and JSON/STEM.jsonl.

    `output` and `json` are folders, created if missing. Raises UsageError if one of them is not a folder, or
    if two sources would be written to the same file; SinkError if a folder cannot be created or written.
    """
    for folder in filter(None, (output, json)):
        _make(folder)
    jobs = []
    taken: dict[str, str] = {}
    for source in sources:
        stem = stem_of(source)
        if other := taken.get(stem.casefold()):
            both = f"{redacted(other)} and {redacted(source)}"
            raise UsageError(f"{both} would be written to the same file. Rename one of them.")
        taken[stem.casefold()] = source
        video = output / f"{stem}{suffix}" if output else None
        jobs.append(Job(source, video, json / f"{stem}.jsonl" if json else None))
    return jobs


def stem_of(source: str) -> str:
    """Return the name of a path or URL, without folders, query and suffix."""
    path = re.split("[?#]", source)[0] if "://" in source else source
    stem = Path(redacted(path).rstrip("/")).stem
    return stem if stem and "***" not in stem else "video"


def check_targets(jobs: Sequence[Job], *, overwrite: bool) -> None:
    """Raise SinkError unless all outputs of `jobs` can be written."""
    for job in jobs:
        for path in job.outputs:
            check_target(path, overwrite=overwrite)


def _make(folder: Path) -> None:
    if folder.suffix and not folder.is_dir():
        raise UsageError(f"{folder} is a file name, but several inputs need a folder. Give {folder.stem}/.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"Cannot create the folder {folder}: {error.strerror}.") from error
    check_folder(folder)
