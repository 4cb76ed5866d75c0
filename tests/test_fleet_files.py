"""Many files on one command line: outputs, messages, the progress file, and what a second run skips."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from live_seg.cli.options import Options
from live_seg.cli.signals import end_at_once, end_in_order, keeping_handlers
from live_seg.errors import SinkError, SourceError, TakenError, UsageError
from live_seg.fleet.jobs import Job, expand, jobs_for, stem_of
from live_seg.fleet.progress import Progress
from live_seg.fleet.resume import WorkFolder, identity, key_of
from live_seg.sinks.remux import remux as really
from tests.clips import clip, names, probe, text_as_mp4
from tests.stand_ins import StandIn
from tests.test_cli import invoke


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[StandIn]:
    """Every stand-in for a model that was loaded."""
    loaded: list[StandIn] = []

    def load(_: Options) -> StandIn:
        loaded.append(StandIn())
        return loaded[-1]

    monkeypatch.setattr(Options, "load", load)
    return loaded


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "in"
    folder.mkdir()
    return [clip(folder / f"{name}.mp4", rate="10", seconds=0.5) for name in ("a", "b")]


def state(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / ".live-seg" / "progress.json").read_text())
    return content


def test_each_file_is_written_with_one_model(clips: list[Path], tmp_path: Path, loads: list[StandIn]) -> None:
    out, found = tmp_path / "out", tmp_path / "found"
    result = invoke("video", *clips, "-o", out, "--json", found)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [str(path) for path in clips]
    assert all(
        line.endswith(f"-> {out / name}") for line, name in zip(lines, ("a.mp4", "b.mp4"), strict=True)
    )
    assert (names(out), names(found)) == ([".live-seg", "a.mp4", "b.mp4"], ["a.jsonl", "b.jsonl"])
    assert len(probe(out / "b.mp4").times) == len((found / "b.jsonl").read_text().splitlines()) == 5
    assert len(loads) == 1


def test_a_second_run_skips_what_is_complete(clips: list[Path], tmp_path: Path, loads: list[StandIn]) -> None:
    out = tmp_path / "out"
    assert invoke("video", *clips, "-o", out).exit_code == 0
    before = [(out / name).stat().st_mtime_ns for name in ("a.mp4", "b.mp4")]
    result = invoke("video", *clips, "-o", out)
    assert result.exit_code == 0
    assert result.stdout.count("complete since an earlier run") == 2
    assert [(out / name).stat().st_mtime_ns for name in ("a.mp4", "b.mp4")] == before
    assert len(loads) == 1


def test_other_options_a_changed_source_and_no_resume_process_again(
    clips: list[Path], tmp_path: Path, loads: list[StandIn]
) -> None:
    out = tmp_path / "out"
    command: tuple[str | Path, ...] = ("video", *clips, "-o", out)
    assert invoke(*command).exit_code == 0
    assert invoke(*command, "--crf", "30").exit_code == 3  # both exist
    assert len(loads) == 1
    os.utime(clips[0], ns=(1, 1))
    result = invoke(*command, "--overwrite")
    assert (result.exit_code, result.stdout.count("complete since")) == (0, 1)
    assert invoke(*command, "--no-resume").exit_code == 3
    assert invoke(*command, "--no-resume", "--overwrite").stdout.count("complete since") == 0


@pytest.mark.usefixtures("loads")
def test_the_others_follow_a_file_that_fails(clips: list[Path], tmp_path: Path) -> None:
    out, broken = tmp_path / "out", text_as_mp4(tmp_path / "broken.mp4")
    result = invoke("video", broken, *clips, "-o", out)
    assert result.exit_code == 1
    assert "broken.mp4" in result.stderr
    assert "1 of 3 files failed" in result.stderr
    assert names(out) == [".live-seg", "a.mp4", "b.mp4"]
    assert [file["state"] for file in state(out)["files"]] == ["failed", "complete", "complete"]
    assert state(out)["state"] == "failed"


def test_an_interrupted_file_is_processed_again(
    clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, seen = tmp_path / "out", 0

    class Interrupted(StandIn):
        def __call__(self, images: list[Any]) -> list[Any]:
            nonlocal seen
            seen += 1
            if seen == 3:
                raise KeyboardInterrupt
            return super().__call__(images)

    monkeypatch.setattr(Options, "load", lambda _: Interrupted())
    assert invoke("video", *clips, "-o", out, "--batch", "2").exit_code == 130
    assert [file["state"] for file in state(out)["files"]] == ["interrupted", "waiting"]
    assert state(out)["state"] == "interrupted"
    assert invoke("video", *clips, "-o", out).exit_code == 0
    assert len(probe(out / "a.mp4").times) == 5


@pytest.fixture
def signals() -> Iterator[None]:
    with keeping_handlers():
        end_in_order()
        yield
        end_at_once()


@pytest.mark.usefixtures("loads", "signals")
@pytest.mark.parametrize(
    ("options", "module"), [((), "sinks.video_writer"), (("--workers", "1"), "fleet.file_run")]
)
def test_a_signal_while_a_file_is_completed_ends_the_run_after_it(
    clips: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    module: str,
) -> None:
    out = tmp_path / "out"

    def remux(*words: Any, **more: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        really(*words, **more)

    with monkeypatch.context() as patch:
        patch.setattr(f"live_seg.{module}.remux", remux)
        assert invoke("video", *clips, "-o", out, *options).exit_code == 143
    assert names(out) == [".live-seg", "a.mp4"]
    assert state(out)["files"][0]["state"] == "complete"
    assert state(out)["state"] == "interrupted"
    end_in_order()
    result = invoke("video", *clips, "-o", out, *options)
    assert (result.exit_code, result.stdout.count("complete since an earlier run")) == (0, 1)
    assert names(out) == [".live-seg", "a.mp4", "b.mp4"]


def test_the_time_left_is_estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("live_seg.fleet.progress.time.monotonic", lambda: now)
    jobs = [Job(f"{name}.mp4", tmp_path / f"{name}.mp4", None) for name in "abc"]
    progress = Progress(tmp_path / "progress.json", jobs, [None] * 3)

    def left() -> float | None:
        progress.write()
        seconds: float | None = json.loads((tmp_path / "progress.json").read_text())["eta_seconds"]
        return seconds

    now = 100.0
    progress.begin(0, 100)
    assert left() is None
    now = 110.0
    progress.segmented(0, 100)  # half of its work, with two more files of the same length
    assert left() == 50
    now = 120.0
    progress.add(0, 100)
    progress.end(0, (), "complete")
    assert left() == 40
    progress.begin(1, 300, segmented=300)  # an earlier run has segmented it: 300 of 600, and c counts as 200
    assert left() == (300 + 2 * 200) * 20 / 200
    progress.add(1, 100, earlier=True)
    assert left() == (200 + 2 * 200) * 20 / 200
    now = 140.0
    progress.add(1, 200)
    progress.end(1, (), "failed", "a reason")
    assert left() == 400 * 40 / 400
    progress.begin(2, 200)
    now = 160.0
    for _ in range(150):
        progress.add(2)  # segmented and drawn
    assert left() == pytest.approx(100 * 60 / 700, abs=0.1)
    progress.finish()
    assert left() is None


@pytest.mark.usefixtures("loads")
def test_the_order_of_files_does_not_matter(clips: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert invoke("video", *clips, "-o", out).exit_code == 0
    assert invoke("video", *clips[::-1], "-o", out).stdout.count("complete since") == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("-o", "out.mp4"), "several inputs need a folder"),
        (("-o", "out", "--show"), "--show needs a single input"),
    ],
)
def test_options_that_need_one_input(
    clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("video", *clips, *more)
    assert result.exit_code == 2
    assert message in result.stderr


def test_no_resume_of_a_single_run_is_refused(clips: list[Path], tmp_path: Path) -> None:
    result = invoke("video", clips[0], "-o", tmp_path / "a.mp4", "--no-resume")
    assert (result.exit_code, "--no-resume would do nothing" in result.stderr) == (2, True)


def test_patterns_of_videos_are_expanded(clips: list[Path], tmp_path: Path) -> None:
    assert expand([str(tmp_path / "in" / "*.mp4")]) == [str(path) for path in clips]
    assert expand(["frames/*.png", "rtsp://camera/1?a=*", "0"]) == [
        "frames/*.png",
        "rtsp://camera/1?a=*",
        "0",
    ]
    with pytest.raises(SourceError, match="No file matches"):
        expand([str(tmp_path / "*.mov")])


def test_two_sources_with_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="same file"):
        jobs_for(["x/clip.mp4", "y/Clip.mov"], tmp_path, None, suffix=".mp4")


@pytest.mark.parametrize(
    ("source", "stem"),
    [
        ("a/b.c.mp4", "b.c"),
        ("frames/", "frames"),
        ("s3://bucket/day.mp4", "day"),
        ("http://h/x.mp4?k=1", "x"),
    ],
)
def test_stems(source: str, stem: str) -> None:
    assert stem_of(source) == stem


def test_a_second_run_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    second = WorkFolder(tmp_path / "work")
    with WorkFolder(tmp_path / "work"), pytest.raises(TakenError, match="Another run"):
        second.__enter__()
    with WorkFolder(tmp_path / "work"):
        pass


def test_a_folder_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="Cannot create"), WorkFolder(tmp_path / "file" / "work"):
        pass


def test_keys_depend_on_every_part(clips: list[Path]) -> None:
    first = identity(str(clips[0]))
    assert first == identity(str(clips[0]))
    assert key_of(first, {"every": 1}) == key_of(first, {"every": 1}) != key_of(first, {"every": 2})
    assert key_of(first) != key_of(identity(str(clips[1])))
    assert identity("rtsp://camera/1") is None


def test_a_changed_output_is_not_taken_as_complete(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    jobs, path = [Job("in.mp4", video, None)], tmp_path / "progress.json"
    video.write_text("complete")
    Progress(path, jobs, ["key"]).end(0, [video], "complete")
    assert Progress(path, jobs, ["key"]).files[0].state == "complete"
    assert Progress(path, jobs, ["other"]).files[0].state == "waiting"
    video.write_text("changed")
    assert Progress(path, jobs, ["key"]).files[0].state == "waiting"
    video.unlink()
    assert Progress(path, jobs, ["key"]).files[0].state == "waiting"


def test_a_run_over_other_files_keeps_what_is_complete(tmp_path: Path) -> None:
    path, jobs = tmp_path / "progress.json", [Job(f"{i}.mp4", tmp_path / str(i), None) for i in range(2)]
    for i, job in enumerate(jobs):
        (tmp_path / str(i)).write_text("complete")
        Progress(path, [job], [str(i)]).end(0, job.outputs, "complete")
    assert [file.state for file in Progress(path, jobs, ["0", "1"]).files] == ["complete"] * 2


@pytest.mark.parametrize("content", ["", "{}", '{"format": 99, "files": []}', '{"format": 1, "files": [{}]}'])
def test_an_unknown_progress_file_is_ignored(tmp_path: Path, content: str) -> None:
    path = tmp_path / "progress.json"
    path.write_text(content)
    assert Progress(path, [Job("in.mp4", None, None)], ["key"]).files[0].state == "waiting"
