"""Check of the microphones."""

import re
import subprocess
import sys

from live_seg.doctor.findings import Finding
from live_seg.ffmpeg import executable

FORMATS = {"linux": ("pulse",), "darwin": ("avfoundation",), "win32": ("dshow",)}
"""ffmpeg's name of the input for microphones, by system."""


def microphones() -> Finding:
    """Check that ffmpeg can record microphones here."""
    wanted = FORMATS.get(sys.platform, ())
    done = subprocess.run(
        [executable(), "-hide_banner", "-devices"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    missing = [name for name in wanted if not re.search(rf"^ D\S* +{name}\b", done.stdout, re.MULTILINE)]
    if missing:
        message = f"ffmpeg lacks {', '.join(missing)}: --microphone does not work"
        return Finding("note", message, "pip install -U imageio-ffmpeg")
    return Finding("good", f"ffmpeg records sound with {', '.join(wanted)}")
