"""Names for files that are made one after the other, by a template with time and number."""

import re
from datetime import datetime
from pathlib import Path
from string import Formatter
from typing import Any

from live_seg.errors import UsageError
from live_seg.files import partial_name

TIME = "{time:%Y%m%d-%H%M%S}"
"""What a plain `{time}` in a name stands for."""


class FileNames:
    """Names for one file after the other, none of which is in use.

    In the `template`, `{time}` or `{time:%H%M%S}` stands for the local time at which a file begins, and
    `{number}` or `{number:03d}` counts the files: on from the highest one there is, from 1 with `overwrite`.
    A template without a number names a file as it stands; when that name is in use, or where `several` files
    are to come, `_{number:03d}` is added before its ending. A brace of the name itself is doubled: `{{`.
    Raises UsageError for any other field or format.
    """

    def __init__(self, template: str | Path, *, several: bool = False, overwrite: bool = False) -> None:
        self._overwrite = overwrite
        self._given: set[Path] = set()
        self._number = 0
        path = Path(str(template).replace("{time}", TIME))
        fields = _fields(path)
        self._plain = None if several or "number" in fields else str(path)
        stem = str(path).removesuffix(path.suffix)
        self._counted = str(path) if "number" in fields else f"{stem}_{{number:03d}}{path.suffix}"

    def next(self) -> Path:
        """Choose the name of the next file. It counts as in use from then on."""
        fields = {"time": datetime.now().astimezone(), "number": self._number}
        path = Path((self._plain or self._counted).format(**fields))
        if self._plain is None or not self._free(path):
            path = self._count_on(fields)
        self._given.add(path)
        return path

    def _count_on(self, fields: dict[str, Any]) -> Path:
        if not self._overwrite:
            self._number = max(self._number, self._highest(Path(self._counted.format(**fields)).parent))
        while True:
            self._number += 1
            path = Path(self._counted.format(**fields | {"number": self._number}))
            if self._free(path):
                return path

    def _free(self, path: Path) -> bool:
        """Whether neither a file nor what a failed run left of it has this name."""
        there = not self._overwrite and (path.exists() or partial_name(path).exists())
        return not there and path not in self._given

    def _highest(self, folder: Path) -> int:
        """Find the highest number among the files of any time in `folder`; 0 when there are none."""
        any_field = {"number": r"(\d+)", "time": ".*", None: ""}
        parts = Formatter().parse(self._counted)
        pattern = "".join(re.escape(literal) + any_field[field] for literal, field, _, _ in parts)
        found = (re.fullmatch(pattern, str(path)) for path in folder.glob("*"))
        return max((int(match[1]) for match in found if match), default=0)


def _fields(template: Path) -> set[str]:
    """Which fields a template has, once it is known that they can be filled in. Raises UsageError."""
    try:
        fields = {field for _, field, _, _ in Formatter().parse(str(template)) if field is not None}
        if fields <= {"time", "number"}:
            str(template).format(time=datetime.now().astimezone(), number=1)
            return fields
        reason = f"there is no field {{{min(fields - {'time', 'number'})}}}"
    except (ValueError, LookupError) as error:
        reason = str(error)
    raise UsageError(
        f"Cannot name files by {template}: {reason}. Use {{number:03d}} and {TIME}, and {{{{ for a brace."
    )
