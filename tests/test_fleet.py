"""Chunks: the same output as a single run, whatever is repeated, resumed or fails."""

import json
import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest

from live_seg.cli.options import Options, StreamOptions
from live_seg.errors import LiveSegError, SourceError
from live_seg.fleet.driver import Driver, Report
from live_seg.fleet.executor import InProcess, Work
from live_seg.fleet.file_run import Settings
from live_seg.fleet.jobs import Job
from live_seg.fleet.plan import chunk_seconds, plan
from live_seg.fleet.progress import Progress
from live_seg.fleet.render import Style
from live_seg.fleet.results import COARSE, Results
from live_seg.pipeline.run import run, show
from live_seg.pipeline.stats import Tally
from live_seg.sinks.codecs import VP9, X264
from live_seg.sinks.encoding import Encoding
from live_seg.sinks.json_lines import JsonLines
from live_seg.sinks.timeline import Timing
from live_seg.sinks.video_writer import VideoWriter
from live_seg.sources.opening import open_source
from live_seg.types import Image, Instances
from tests.clips import clip, decode_frames, names, probe
from tests.marks import slow
from tests.stand_ins import StandIn
from tests.test_cli import invoke


class Bright(StandIn):
    """Finds the bright areas of a picture: they move, appear and vanish with it."""

    def __call__(self, images: Sequence[Image]) -> list[Instances]:
        self.batches.append(len(images))
        return [self._found(image) for image in images]

    def _found(self, image: Image) -> Instances:
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        count, _, stats, _ = cv2.connectedComponentsWithStats((grey > 150).astype(np.uint8))
        large = [row[:4] for row in stats[1:count] if row[4] > 100][:5]
        boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in large], np.float32).reshape(-1, 4)
        masks = [
            cv2.resize(grey[y : y + h, x : x + w], (28, 28)).astype(np.float32) / 255 for x, y, w, h in large
        ]
        n = len(boxes)
        return Instances(
            boxes=boxes,
            masks=np.array(masks, np.float32).reshape(n, 28, 28),
            class_ids=np.ones(n, np.int32),
            scores=np.linspace(0.9, 0.5, n, dtype=np.float32),
        )


def style(options: StreamOptions, job: Job, **changes: Any) -> Style:
    fields: dict[str, Any] = {
        "video": job.video.name if job.video else None,
        "json": job.json is not None,
        "draw": options.draw_function,
        "every": 1,
        "timing": Timing(),
        "codec": VP9 if options.transparent else X264,
        "crf": 0,
        "alpha": options.transparent,
    }
    return Style(**fields | changes)


def single(job: Job, options: StreamOptions, **changes: Any) -> None:
    """Write the outputs of `job` in a single run."""
    chosen = style(options, job, **changes)
    with open_source(Path(job.source)) as source:
        assert job.video is not None
        assert job.json is not None
        writer = VideoWriter(
            job.video,
            source.fps,
            timing=chosen.timing,
            audio=source.audio,
            encoding=Encoding(chosen.crf),
            alpha=chosen.alpha,
        )
        segment = Bright()
        with writer, JsonLines(job.json, segment.class_names) as lines:
            results = run(source, segment, every=chosen.every)
            drawing = partial(options.draw_function(), names=segment.class_names)
            for _ in show(results, drawing, [writer, lines], Tally()):
                pass


class Recorded(InProcess):
    """Keeps what was done, and changes it."""

    def __init__(self, change: Callable[[int, Work], Work] = lambda _, work: work) -> None:
        super().__init__(cast("Any", Bright))
        self.kinds: list[str] = []
        self._change = change

    def start(self, worker: str, work: Work) -> None:
        self.kinds.append(type(work).__name__)
        super().start(worker, self._change(len(self.kinds), work))


def fleet(
    jobs: Sequence[Job],
    options: StreamOptions,
    folder: Path,
    executor: InProcess | None = None,
    *,
    seconds: float = 0.6,
    **changes: Any,
) -> tuple[Progress, list[str]]:
    """Write the outputs of `jobs` in chunks of about `seconds`; return the progress and the failures."""
    folder.mkdir(exist_ok=True)
    failures: list[str] = []
    progress = Progress(
        folder / "progress.json", jobs, [f"key-{job.source}".replace("/", "_") for job in jobs]
    )
    report = Report(
        opened=lambda *_: None,
        advanced=lambda _: None,
        complete=lambda _: None,
        failed=lambda _, reason: failures.append(reason),
    )
    settings = Settings(style(options, jobs[0], **changes), chunk_seconds=seconds)
    Driver(jobs, progress, executor or Recorded(), folder, settings, report).run()
    return progress, failures


def jobs_in(folder: Path, source: Path, suffix: str = ".mp4") -> Job:
    folder.mkdir(exist_ok=True)
    return Job(str(source), folder / f"a{suffix}", folder / "a.jsonl")


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 2 s at a rate of which a frame takes no whole number of ticks, with audio."""
    path = tmp_path_factory.mktemp("clips") / "moving.mp4"
    return clip(path, rate="24000/1001", seconds=2.0, audio=1, encode=("-g", "10"))


def same_json(one: Path, other: Path) -> None:
    """Check that two files of JSON Lines agree, up to a few pixels at the edge of a mask."""
    lines = [[json.loads(line) for line in path.read_text().splitlines()] for path in (one, other)]
    assert len(lines[0]) == len(lines[1])
    for before, after in zip(*lines, strict=True):
        for instances in (before["instances"], after["instances"]):
            for instance in instances:
                del instance["mask"]
        assert before == after


@pytest.mark.parametrize(
    ("suffix", "options", "changes"),
    [
        (".mp4", StreamOptions(), {"every": 3}),
        (".mov", StreamOptions(effect="blur-background"), {"timing": Timing(constant=True)}),
        slow(".mp4", StreamOptions(), {}),
        slow(".mkv", StreamOptions(), {}),
        slow(".webm", StreamOptions(effect="cutout"), {}),
    ],
    ids=["propagation", "effect at a constant rate", "mp4", "mkv", "alpha"],
)
def test_the_output_is_that_of_a_single_run(
    moving: Path, tmp_path: Path, suffix: str, options: StreamOptions, changes: dict[str, Any]
) -> None:
    alone, joined = jobs_in(tmp_path / "alone", moving, suffix), jobs_in(tmp_path / "fleet", moving, suffix)
    single(alone, options, **changes)
    executor = Recorded()
    _, failures = fleet([joined], options, tmp_path / "work", executor, **changes)
    assert not failures
    assert executor.kinds.count("Detect") == executor.kinds.count("Render") == 3
    assert alone.video is not None
    assert joined.video is not None
    before, after = probe(alone.video), probe(joined.video)
    assert before.times == after.times
    assert before.audio_spans == after.audio_spans
    assert before.duration == after.duration
    assert alone.json is not None
    assert joined.json is not None
    same_json(alone.json, joined.json)
    if not options.transparent:
        for one, other in zip(decode_frames(alone.video), decode_frames(joined.video), strict=True):
            assert np.abs(one.astype(int) - other).mean() < 0.5


def test_a_run_continues_with_what_is_done(moving: Path, tmp_path: Path) -> None:
    job, work = jobs_in(tmp_path / "out", moving), tmp_path / "work"

    def interrupt(count: int, work: Work) -> Work:
        if count == 4:
            raise KeyboardInterrupt
        return work

    first = Recorded(interrupt)
    with pytest.raises(KeyboardInterrupt):
        fleet([job], StreamOptions(), work, first)
    assert job.video is not None
    assert not job.video.exists()
    second = Recorded()
    fleet([job], StreamOptions(), work, second)
    alone = Recorded()
    fleet([jobs_in(tmp_path / "alone", moving)], StreamOptions(), tmp_path / "other", alone)
    for kind in ("Detect", "Render"):
        assert (first.kinds[:-1] + second.kinds).count(kind) == alone.kinds.count(kind)
    assert first.kinds[:-1].count("Detect") > 0
    assert (tmp_path / "alone" / "a.jsonl").read_bytes() == (tmp_path / "out" / "a.jsonl").read_bytes()


def test_a_chunk_that_fails_twice_is_repeated(moving: Path, tmp_path: Path) -> None:
    job = jobs_in(tmp_path / "out", moving)

    def fail(count: int, work: Work) -> Work:
        def failing(_: Any) -> None:
            raise RuntimeError("out of order")

        return failing if count in (2, 3) else work

    progress, failures = fleet([job], StreamOptions(), tmp_path / "work", Recorded(fail))
    assert not failures
    assert (progress.totals.retried, progress.totals.failed) == (2, 0)
    file = progress.files[0]
    assert (file.state, file.frames, file.frames_segmented, file.chunks) == ("complete", 48, 48, 3)


class Poisoned(Bright):
    """Crashes on pictures with a white top left corner."""

    def _found(self, image: Image) -> Instances:
        if image[:8, :8].min() > 200:
            raise RuntimeError("poison")
        return super()._found(image)


def test_a_poison_chunk_is_given_up_and_the_rest_finishes(
    moving: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flash = "drawbox=w=16:h=16:color=white:t=fill:enable='eq(n\\,20)'"
    bad = clip(tmp_path / "bad.mp4", rate="24", seconds=2.0, encode=("-vf", flash, "-crf", "0"))
    jobs = [jobs_in(tmp_path / "bad", bad), jobs_in(tmp_path / "good", moving)]
    executor = Recorded()
    monkeypatch.setattr(executor, "_model", Poisoned)
    progress, failures = fleet(jobs, StreamOptions(), tmp_path / "work", executor)
    assert [file.state for file in progress.files] == ["failed", "complete"]
    assert len(failures) == 1
    assert "failed 3 times: poison" in failures[0]
    assert "chunk 2 of 3 (frames 15 to 28)" in failures[0]
    assert not list((tmp_path / "bad").iterdir())
    kept = [path.suffix for path in (tmp_path / "work").glob("*bad*/*")]
    assert (kept.count(".detected"), kept.count(".done")) == (2, 0)
    again = Recorded()
    fleet(jobs[:1], StreamOptions(), tmp_path / "work", again)
    assert again.kinds.count("Detect") == 1
    assert len(decode_frames(tmp_path / "bad" / "a.mp4")) == 48


def test_a_source_that_vanishes(moving: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    source.write_bytes(moving.read_bytes())
    job = jobs_in(tmp_path / "out", source)

    def vanish(count: int, work: Work) -> Work:
        if count == 3:
            source.unlink()
        return work

    _, failures = fleet([job], StreamOptions(), tmp_path / "work", Recorded(vanish))
    assert "No such file" in failures[0]
    assert not list((tmp_path / "out").iterdir())


def test_results_keep_the_side_of_every_mask_cell() -> None:
    rng = np.random.default_rng(0)
    found = [
        Instances(
            boxes=rng.uniform(0, 99, (n, 4)).astype(np.float32),
            masks=rng.uniform(0, 1, (n, 28, 28)).astype(np.float32),
            class_ids=np.ones(n, np.int32),
            scores=rng.uniform(0, 1, n).astype(np.float32),
        )
        for n in (2, 0, 1)
    ]
    found[0].masks[0, 0, :3] = (0.5, np.nextafter(np.float32(0.5), np.float32(0)), 1.0)
    results = Results(np.arange(3.0), (320, 200), np.arange(3), found, ("background", "thing"), "a CPU")
    for levels in (255, COARSE):
        read = Results.unpack(results._pack(levels))
        assert (read.size, read.class_names, read.device) == (results.size, results.class_names, "a CPU")
        for before, after in zip(found, read.instances, strict=True):
            assert np.array_equal(before.boxes, after.boxes)
            assert np.array_equal(before.scores, after.scores)
            assert np.array_equal(before.masks >= 0.5, after.masks >= 0.5)
            assert np.abs(before.masks - after.masks).max(initial=0) <= 0.501 / levels


def test_damaged_results_are_named() -> None:
    with pytest.raises(LiveSegError, match="damaged"):
        Results.unpack(b"PK\x03\x04 nothing")


def test_chunks_begin_at_key_frames_and_multiples(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", rate="10", seconds=10, encode=("-g", "25", "-keyint_min", "25"))
    chunks = plan(path, seconds=3)
    assert [chunk.first for chunk in chunks] == [0, 25, 50, 75]
    assert [chunk.frames for chunk in chunks] == [25] * 4
    assert (chunks[0].begin, chunks[-1].end) == (0, math.inf)
    assert chunks[1].begin == chunks[0].end == pytest.approx(2.45)
    assert [chunk.first for chunk in plan(path, seconds=3, every=4)] == [0, 28, 52, 76]
    part = plan(path, seconds=3, start=4, end=9)
    assert (part[0].begin, part[-1].end, sum(chunk.frames for chunk in part)) == (4, 9, 50)


def test_a_video_without_key_frames_is_cut_anywhere(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", rate="10", seconds=10, encode=("-g", "999"))
    assert [chunk.first for chunk in plan(path, seconds=3)] == [0, 30, 60]


def test_a_file_whose_clock_restarts_is_one_chunk(tmp_path: Path) -> None:
    part = clip(tmp_path / "a.ts", rate="10", seconds=4).read_bytes()
    (tmp_path / "b.ts").write_bytes(part + part)
    assert len(plan(tmp_path / "a.ts", seconds=1)) == 4
    assert len(plan(tmp_path / "b.ts", seconds=1)) == 1


def test_no_frames_to_plan(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", rate="10")
    with pytest.raises(SourceError, match="no frames from 5 s on"):
        plan(path, start=5)


def test_short_videos_have_a_chunk_for_each_worker() -> None:
    assert [chunk_seconds(*case) for case in ((3600.0, 4), (120.0, 4), (15.0, 4))] == [60, 15, 10]


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("-o", "out"), 2, "folder for images"),
        (("-o", "a.avi"), 3, "Cannot write video as a.avi"),
        (("-o", "a.mp4", "--show"), 2, "--show needs a run without --workers"),
        (("-o", "a.mp4", "--policy", "latest"), 2, "--policy would do nothing"),
        (("-o", "a.mp4", "--effect", "blur"), 2, "--effect blur needs a run without --workers"),
    ],
)
def test_options_that_chunks_do_not_have(
    moving: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("video", moving, "--workers", "1", *more)
    assert result.exit_code == code
    assert message in result.stderr


def test_the_command_writes_video_and_json_and_removes_its_folder(
    moving: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Options, "load", lambda _: Bright())
    outputs = ("-o", tmp_path / "a.mp4", "--json", tmp_path / "a.jsonl")
    result = invoke("video", moving, *outputs, "--workers", "1")
    assert result.exit_code == 0
    assert re.fullmatch(r"48 frames in .* small with a stand-in -> .*a.mp4, .*a.jsonl\n", result.stdout)
    assert f"{tmp_path / 'a.mp4'}.work" in result.stderr
    assert names(tmp_path) == ["a.jsonl", "a.mp4"]
    assert invoke("video", moving, *outputs, "--workers", "1").exit_code == 3
