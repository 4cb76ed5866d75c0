"""Windows and macOS, simulated (see tests.elsewhere): every module imports and a video is segmented."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clips import clip, decode_frames
from tests.stand_ins import ROOT


def elsewhere(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "warn_default_encoding", "-m", "tests.elsewhere", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("modules", ["light", pytest.param("all", marks=pytest.mark.slow)])
@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_every_module_imports_and_a_video_is_segmented(system: str, modules: str, tmp_path: Path) -> None:
    source, out, lines = clip(tmp_path / "in.mp4", rate="10"), tmp_path / "out.mp4", tmp_path / "out.jsonl"
    done = elsewhere(system, modules, "video", source, "-o", out, "--json", lines)
    assert done.returncode == 0, done.stderr
    imported, summary = done.stdout.splitlines()
    assert int(imported.split()[0]) > 90
    assert " frames in " in summary
    count = len(decode_frames(source))
    assert len(decode_frames(out)) == count
    assert len([json.loads(line) for line in lines.read_text().splitlines()]) == count
    encodings = [
        line for line in done.stderr.splitlines() if "EncodingWarning" in line and "live_seg" in line
    ]
    assert encodings == []
