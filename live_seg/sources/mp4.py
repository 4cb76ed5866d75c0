"""The outermost boxes of an mp4: enough to say why one cannot be opened."""

import os
from pathlib import Path


def why_unreadable(path: Path) -> str:
    """Say why `path` cannot be opened as a video, as far as its outermost parts tell."""
    boxes = _mp4_boxes(path)
    if b"moov" in boxes:
        return f"{path} holds no frames that can be decoded. Is it audio only? If not: ffmpeg -i IN OUT.mp4"
    if b"ftyp" in boxes:
        return (
            f"{path} is incomplete: its index (moov) is missing, as after a copy or recording that was cut "
            "off. Copy or record it again."
        )
    return f"{path} is not a video that can be read. If it plays elsewhere, try: ffmpeg -i IN OUT.mp4"


def _mp4_boxes(path: Path) -> set[bytes]:
    """Name the outermost boxes of an mp4 (ISO/IEC 14496-12, section 4.2); other files give nonsense."""
    names, start = set(), 0
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while start + 8 <= end:
            file.seek(start)
            length, name = int.from_bytes(file.read(4)), file.read(4)
            length = int.from_bytes(file.read(8)) if length == 1 else length
            names.add(name)
            start = start + max(length, 8) if length else end
    return names
