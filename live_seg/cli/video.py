"""The command `live-seg video`."""

import contextlib
import functools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from live_seg.cli.expand import with_options
from live_seg.cli.hiding import hiding_of
from live_seg.cli.options import StreamOptions
from live_seg.cli.outputs import (
    check_jobs,
    check_outputs,
    inputs_of,
    refuse_standard_output,
)
from live_seg.cli.panels import ADVANCED, INPUT, OUTPUT, option
from live_seg.cli.process import Shared, process
from live_seg.cli.unused import refuse_unused_of_video
from live_seg.errors import UsageError

if TYPE_CHECKING:
    from live_seg.fleet.jobs import Job
    from live_seg.pipeline.filling import Filling
    from live_seg.sinks.timeline import Timing
    from live_seg.types import Sink, Source
    from live_seg.ui.playback import Playback
    from live_seg.ui.window import Window

Gaps = Literal["keep", "cut"]
"""Treatments of long times without a frame."""

IMAGES_FPS = 25.0
"""Frames per second of a folder of images."""

KEPT_SOUND = 60.0
"""Seconds of the sound of a network stream that are kept while its frames are segmented and written."""


@with_options
def video(
    sources: Annotated[
        list[str], typer.Argument(metavar="IN...", help="Video files, a URL, or a folder of frames.")
    ],
    options: StreamOptions,
    output: Annotated[
        Path | None,
        option(
            OUTPUT,
            "The video to write, or a folder for images or for the videos of several IN.",
            "-o",
            "--output",
        ),
    ] = None,
    start: Annotated[str | None, option(INPUT, "Begin at this time of the file: 1:20 or 80.")] = None,
    end: Annotated[str | None, option(INPUT, "End before this time of the file: 2:00 or 120.")] = None,
    show: Annotated[bool, option(OUTPUT, "Show a window.", "--show")] = False,
    audit: Annotated[
        Path | None,
        option(OUTPUT, "Report where each hidden track was found, propagated or uncertain: audit.json."),
    ] = None,
    every: Annotated[
        int,
        option(ADVANCED, "Segment every Nth frame and propagate its masks to the others.", min=1),
    ] = 1,
    fps: Annotated[
        float | None,
        option(
            OUTPUT,
            "Constant frame rate of the video: frames are repeated or left out.",
            min=0.001,
            max=1000,
            show_default="every frame at its own time; 25 for a folder of images",
        ),
    ] = None,
    gaps: Annotated[
        Gaps | None,
        option(
            ADVANCED,
            "keep all times without frames, or cut those above 10 s to one frame.",
            show_default="keep up to one hour, cut above",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        option(
            ADVANCED,
            "Process videos in chunks with this many workers. More than one needs live-seg[ray].",
            min=1,
            show_default="no chunks",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        option(ADVANCED, "Use workers of a Ray cluster: its address, or auto for the one of this machine."),
    ] = None,
    no_resume: Annotated[
        bool,
        option(ADVANCED, "Forget what earlier runs of the same command have completed.", "--no-resume"),
    ] = False,
) -> None:
    """Segment videos and keep their audio and the time of every frame."""
    if output is None and options.json is None and not show:
        raise UsageError("Nothing to do: give -o OUT.mp4, --json OUT.jsonl or --show.")
    refuse_standard_output(output)
    from live_seg.fleet.jobs import expand
    from live_seg.fleet.stores import expand_urls, is_store, url_of
    from live_seg.sources.excerpt import parse_time

    sources = [
        name for source in expand(sources) for name in (expand_urls(source) if is_store(source) else [source])
    ]
    on_store = any(map(is_store, sources)) or any(url_of(path) for path in (output, options.json) if path)
    several = len(sources) > 1
    for source in sources:
        refuse_unused_of_video(
            options,
            source,
            writes_video=output is not None and (several or output.suffix != ""),
            audit=audit is not None,
        )
    part = {name: parse_time(text) for name, text in (("start", start), ("end", end)) if text is not None}
    settings = VideoSettings(options.with_safe_threshold(), part, every, fps, gaps)
    alone = {"--show": show, "--audit": audit is not None, "--json -": options.json_to_stdout}
    single = [name for name, given in alone.items() if given]
    if workers or ray or on_store:
        from live_seg.cli.chunks import process_in_chunks

        if options.hides:  # tracks are propagated across the cuts between chunks
            single.append(f"--effect {options.effect}")
        if single:
            raise UsageError(f"{single[0]} needs a run without --workers, --ray and object stores.")
        process_in_chunks(sources, output, settings, workers=workers, ray=ray, no_resume=no_resume)
    elif not several:
        if no_resume:
            raise UsageError("--no-resume would do nothing: a single run cannot be resumed. Leave it out.")
        settings.process_one(sources[0], output, options.json, show=show, audit=audit)
    elif single:
        raise UsageError(f"{single[0]} needs a single input.")
    else:
        _process_many(sources, output, settings, no_resume=no_resume)


@dataclass(frozen=True)
class VideoSettings:
    """Options that are the same for all files of a command."""

    options: StreamOptions
    part: dict[str, float]
    """`start` and `end` in seconds, where given."""
    every: int
    fps: float | None
    gaps: Gaps | None

    def process_one(
        self,
        source: str,
        output: Path | None,
        json: Path | None,
        shared: Shared | None = None,
        *,
        show: bool = False,
        audit: Path | None = None,
    ) -> None:
        """Process `source` to the files `output`, `json` and `audit`, and to a window with `show`."""
        options = replace(self.options, json=json)
        reopen = functools.partial(
            options.open, source, wait=False, image_fps=self.fps or IMAGES_FPS, **self.part
        )
        kept = KEPT_SOUND if output is not None and _is_video(output) and options.sound else 0.0
        with reopen(keep_sound=kept) as opened, contextlib.ExitStack() as stack:
            check_outputs([output, json, audit], inputs_of(opened, options))
            screen = _screen(opened) if show else None
            sinks = [_video_or_images(output, opened, self)] if output else []
            sinks += [screen] if screen else []
            hiding = hiding_of(options, None if opened.live else opened.fps, audit=audit is not None)
            if audit is not None and hiding.filling is not None:
                sinks.append(_audit(audit, hiding.filling, self.every, options))
            again = stack.enter_context(reopen()) if hiding.filling and not opened.live else None
            process(
                opened,
                sinks,
                options.with_network_threshold(),
                output=output or json,
                draw=hiding.draw,
                fill=functools.partial(hiding.fill, again=again),
                every=self.every,
                idle=functools.partial(screen.wait, 0) if screen else None,
                shared=shared,
                **options.run_arguments,
            )

    def timing(self) -> "Timing":
        """Return the choices about the times of the video's frames."""
        from live_seg.sinks.timeline import MAX_GAP, SHORT_GAP, Timing

        longest = {None: MAX_GAP, "keep": math.inf, "cut": SHORT_GAP}[self.gaps]
        return Timing(constant=self.fps is not None, max_gap=longest)

    def fingerprint(self) -> dict[str, Any]:
        """Return what the outputs depend on besides the source, as JSON values."""
        from live_seg import __version__
        from live_seg.files import sha256_of
        from live_seg.models.download import find

        settings = asdict(self)
        for name in ("overwrite", "quiet", "batch", "timeout", "reconnect", "json"):
            del settings["options"][name]
        weights = sha256_of(find(self.options.model, quiet=self.options.quiet))
        return settings | {"version": __version__, "weights": weights}


def _process_many(
    sources: Sequence[str], output: Path | None, settings: VideoSettings, *, no_resume: bool
) -> None:
    """Process each of `sources` to a file in the folder `output`, and JSON Lines in the folder --json."""
    from live_seg.cli.many import process_many
    from live_seg.fleet.jobs import check_targets, jobs_for
    from live_seg.fleet.progress import Progress
    from live_seg.fleet.resume import FOLDER, WorkFolder, identity, key_of

    options = settings.options
    jobs = jobs_for(sources, output, options.json, suffix=".mov" if options.transparent else ".mp4")
    check_jobs(jobs, options)
    common = settings.fingerprint()
    identities = [identity(source) for source in sources]
    keys = [key_of(one, common) if one is not None else None for one in identities]
    folder = next(path for path in (output, options.json) if path is not None)
    with WorkFolder(folder / FOLDER, restart=no_resume) as work:
        progress = Progress(work.path / "progress.json", jobs, keys)
        new = [job for job, file in zip(jobs, progress.files, strict=True) if file.state == "waiting"]
        check_targets(new, overwrite=options.overwrite)

        def one(job: "Job", shared: Shared, left: bool) -> None:
            again = replace(options, overwrite=options.overwrite or left)
            replace(settings, options=again).process_one(job.source, job.video, job.json, shared)

        process_many(jobs, progress, one, options.with_network_threshold().load, quiet=options.quiet)


def _screen(source: "Source") -> "Window | Playback":
    """Return the window that shows `source`: files no faster than they play."""
    from live_seg.ui.playback import Playback
    from live_seg.ui.window import Window

    window = Window(f"live-seg {source.name}")
    return window if source.live else Playback(window)


def _audit(path: Path, filling: "Filling", every: int, options: StreamOptions) -> "Sink":
    """Return the sink that reports on what `filling` propagates."""
    from live_seg.pipeline.audit import Audit

    return Audit(path, lambda: filling.latest, every=every, overwrite=options.overwrite)


def _is_video(output: Path) -> bool:
    """Return whether `output` is a video rather than a folder of images."""
    return bool(output.suffix) and not output.is_dir()


def _video_or_images(output: Path, source: "Source", settings: VideoSettings) -> "Sink":
    """Return the sink for `output`: images if it is a folder or has no suffix, else a video."""
    from live_seg.sinks.images import Images
    from live_seg.sinks.video_writer import VideoWriter

    options = settings.options
    alpha, overwrite = options.transparent, options.overwrite
    if not _is_video(output):
        return Images(output, alpha=alpha, overwrite=overwrite)
    return VideoWriter(
        output,
        settings.fps or source.fps,
        timing=settings.timing(),
        audio=source.audio or source.sound,
        encoding=options.encoding(),
        alpha=alpha,
        overwrite=overwrite,
    )
