"""Names of consecutive output files, from a template with the time and a number."""

import copy
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from string import Formatter
from typing import Any

from live_seg.errors import UsageError
from live_seg.files import file_key, make_folder, partial_name

TIME_FIELD = "{time:%Y%m%d-%H%M%S}"
"""Expansion of a `{time}` without format."""


NUMBER_FORM = re.compile(r"0?\d{0,2}d?")


class FileNames:
    """Generate unused file names from a template.

    In `template`, `{time}` or `{time:%H%M%S}` is the local time at which a file starts, and `{number}` or
    `{number:03d}` numbers the files: from the highest existing number + 1, or from 1 with `overwrite`. A
    template without a number is used as it is; if that name exists, or if there are `several` files,
    `_{number:03d}` is inserted before the suffix. Write `{{` for a literal brace.

    Raises UsageError for any other field or format.
    """

    def __init__(self, template: str | Path, *, several: bool = False, overwrite: bool = False) -> None:
        self._overwrite = overwrite
        self._kept: set[tuple[int, int] | str] = set()
        self._used: set[Path] = set()
        self._number = 0
        path = Path(str(template).replace("{time}", TIME_FIELD))
        fields = _fields(path)
        self._folder = _fixed_folder(path)
        self._plain = None if several or "number" in fields else str(path)
        stem = str(path).removesuffix(path.suffix)
        self._numbered = str(path) if "number" in fields else f"{stem}_{{number:03d}}{path.suffix}"

    def keep(self, files: Iterable[Path]) -> None:
        """Never return a name of one of `files`, not even with `overwrite`."""
        self._kept.update(map(file_key, files))

    def example(self) -> Path:
        """Return what `next` will return, but in an outer folder if its own one is missing."""
        path = copy.deepcopy(self).next()
        return path if path.parent.is_dir() else self._folder / path.name

    def make_folder(self, path: Path) -> None:
        """Create the folder of the file `path`, except the part that is the same for all files.

        Raises SinkError.
        """
        if self._folder.is_dir():  # else it may be a disk that is not there
            make_folder(path.parent)

    def next(self) -> Path:
        """Return the name of the next file. It is never returned again."""
        fields = {"time": datetime.now().astimezone(), "number": self._number}
        path = Path((self._plain or self._numbered).format(**fields))
        if self._plain is None or not self._is_free(path):
            path = self._next_numbered(fields)
        self._used.add(path)
        return path

    def _next_numbered(self, fields: dict[str, Any]) -> Path:
        if not self._overwrite:
            self._number = max(self._number, self._highest(Path(self._numbered.format(**fields)).parent))
        while True:
            self._number += 1
            path = Path(self._numbered.format(**fields | {"number": self._number}))
            if self._is_free(path):
                return path

    def _is_free(self, path: Path) -> bool:
        """Return whether neither a file nor the partial file of a failed run has this name, nor an input."""
        exists = not self._overwrite and (path.exists() or partial_name(path).exists())
        return not (exists or path in self._used or file_key(path) in self._kept)

    def _highest(self, folder: Path) -> int:
        """Return the highest number of the files in `folder`, whatever their time; 0 if there are none."""
        any_field = {"number": r"(\d+)", "time": ".*", None: ""}
        parts = Formatter().parse(self._numbered)
        pattern = "".join(re.escape(literal) + any_field[field] for literal, field, _, _ in parts)
        found = (re.fullmatch(pattern, str(path)) for path in folder.glob("*"))
        return max((int(match[1]) for match in found if match), default=0)


def _fixed_folder(template: Path) -> Path:
    """Return the innermost folder of a template whose name is the same for all files."""
    fixed = ""
    for literal, field, _, _ in Formatter().parse(str(template)):
        fixed += literal
        if field is not None:
            return Path(fixed + "name").parent
    return Path(fixed).parent


def _fields(template: Path) -> set[str]:
    """Return the fields of a template. Raises UsageError if one cannot be filled in."""
    try:
        fields = set()
        for _, field, form, _ in Formatter().parse(str(template)):
            fields |= {field} if field is not None else set()
            if field == "number" and not NUMBER_FORM.fullmatch(form or ""):
                raise ValueError(f"{form!r} is no format of a number with up to 99 digits")
        if fields <= {"time", "number"}:
            str(template).format(time=datetime.now().astimezone(), number=1)
            return fields
        reason = f"there is no field {{{min(fields - {'time', 'number'})}}}"
    except (ValueError, LookupError) as error:
        reason = str(error)
    raise UsageError(
        f"Invalid file name template {template}: {reason}. Use {{number:03d}} and {TIME_FIELD}, and {{{{ for "
        "a literal brace."
    )
