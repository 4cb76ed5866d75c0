"""The Makefile's environment, with stand-ins for Python and pip."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.stand_ins import ROOT

PYTHON = """#!/bin/sh
# Called as `python -m venv FOLDER`; like venv, it keeps the programs of another version.
mkdir -p "$3/bin"
[ -e "$3/bin/pip" ] || printf '#!/bin/sh\\nexit %s\\n' {fails} > "$3/bin/pip"
[ -e "$3/bin/live-seg" ] || printf '#!/bin/sh\\necho "$0" "$@"\\n' > "$3/bin/live-seg"
chmod +x "$3/bin/pip" "$3/bin/live-seg"
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_demo_recovers_from_a_first_try_with_a_wrong_python(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for name, fails in (("old", 1), ("new", 0)):
        (tmp_path / name).write_text(PYTHON.replace("{fails}", str(fails)), encoding="utf-8")
        (tmp_path / name).chmod(0o755)

    def make(python: str) -> subprocess.CompletedProcess[str]:
        words = ["make", "--silent", "demo", f"PYTHON=./{python}"]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert make("old").returncode != 0
    done = make("new")
    assert (done.returncode, done.stdout) == (0, ".venv/bin/live-seg demo -o demo.mp4 --overwrite\n")
    (tmp_path / ".venv" / "mine").touch()
    assert make("new").returncode == 0
    assert (tmp_path / ".venv" / "mine").exists()  # a complete environment is kept
