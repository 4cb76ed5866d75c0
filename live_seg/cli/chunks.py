"""Process videos in chunks, with one or more workers: `live-seg video --workers`."""

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from live_seg.cli.many import ManyFilesBar, size_of
from live_seg.cli.messages import clean
from live_seg.cli.outputs import check_jobs
from live_seg.cli.signals import completing_now, keeping_handlers
from live_seg.cli.unused import refuse
from live_seg.errors import LiveSegError, UsageError

if TYPE_CHECKING:
    from live_seg.cli.video import VideoSettings
    from live_seg.fleet.driver import Report
    from live_seg.fleet.executor import Executor
    from live_seg.fleet.file_run import FileRun, Settings
    from live_seg.fleet.jobs import Job
    from live_seg.fleet.progress import Progress


def process_in_chunks(
    sources: Sequence[str],
    output: Path | None,
    settings: "VideoSettings",
    *,
    workers: int | None,
    ray: str | None,
    no_resume: bool,
) -> None:
    """Process `sources` in chunks, with `workers` processes of this machine or of the cluster `ray`.

    Raises LiveSegError if some files failed.
    """
    from live_seg.fleet.driver import Driver
    from live_seg.fleet.jobs import check_targets
    from live_seg.fleet.progress import Progress
    from live_seg.fleet.resume import WorkFolder, key_of

    options = settings.options
    refuse(
        options, ("propagate", "policy"), "it applies to live sources. Leave it out, or leave out --workers."
    )
    jobs, folder = _jobs(sources, output, settings)
    check_jobs(jobs, options)
    common = settings.fingerprint()
    keys = [key_of(_identity(source), source, common) for source in sources]
    _forget_missing(jobs)
    with WorkFolder(folder, restart=no_resume) as work:
        progress = Progress(work.path / "progress.json", jobs, keys)
        new = [job for job, file in zip(jobs, progress.files, strict=True) if file.state != "complete"]
        check_targets(new, overwrite=options.overwrite)
        _say(f"Unfinished work is kept in {folder}.", quiet=options.quiet)
        bar = ManyFilesBar([size_of(job.source) for job in jobs], quiet=options.quiet)
        executor = _executor(settings, workers, ray)
        try:
            with bar.bar:
                report = _report(jobs, progress, bar, settings)
                chosen = _settings(jobs[0], settings, workers or 1)
                Driver(jobs, progress, executor, work.path, chosen, report).run()
        except KeyboardInterrupt:
            progress.interrupt()
            _say("Interrupted. The same command continues with what is done.", quiet=options.quiet)
            raise
        finally:
            executor.close()
    failed = sum(file.state == "failed" for file in progress.files)
    if failed:
        raise LiveSegError(f"{failed} of {len(jobs)} files failed; the messages above say why.")
    if len(jobs) == 1:
        work.remove()


def _identity(source: str) -> object:
    from live_seg.fleet import resume, stores

    return stores.identity(source) if "://" in source else resume.identity(source)


def _jobs(sources: Sequence[str], output: Path | None, settings: "VideoSettings") -> tuple[list["Job"], Path]:
    """Return the jobs and the folder for unfinished work."""
    from live_seg.fleet.jobs import Job, jobs_for
    from live_seg.fleet.resume import FOLDER
    from live_seg.fleet.stores import url_of
    from live_seg.sinks.containers import container_for

    options = settings.options
    first = next(path for path in (output, options.json) if path is not None)
    if url := url_of(first):
        return _store_jobs(sources, output, settings, url)
    if len(sources) > 1:
        return jobs_for(sources, output, options.json, suffix=_suffix(settings)), first / FOLDER
    if output is not None:
        if output.is_dir() or not output.suffix:
            raise UsageError(f"{output} is a folder for images, which --workers cannot write. Give a video.")
        container_for(output, alpha=options.transparent)
    return [Job(sources[0], output, options.json)], first.with_name(f"{first.name}.work")


def _store_jobs(
    sources: Sequence[str], output: Path | None, settings: "VideoSettings", url: str
) -> tuple[list["Job"], Path]:
    """Return jobs that write to the folder or file `url` of a store. They work in the cache folder."""
    from live_seg.files import cache_folder
    from live_seg.fleet.jobs import jobs_for
    from live_seg.fleet.resume import FOLDER, key_of
    from live_seg.fleet.stores import url_of

    json = settings.options.json
    if output is not None and json is not None and url_of(json) != url:
        raise UsageError(f"On a store, --json must be the folder of -o: --json {url}")
    name = url.rstrip("/").rpartition("/")[2]
    if Path(name).suffix:
        raise UsageError(f"On a store, -o is a folder. Give {url.removesuffix(name)}")
    folder = cache_folder() / "fleet" / key_of(url)
    jobs = jobs_for(sources, output and folder, json and folder, suffix=_suffix(settings))
    return [replace(job, store=url.rstrip("/")) for job in jobs], folder / FOLDER


def _forget_missing(jobs: Sequence["Job"]) -> None:
    """Delete the records of outputs that are no longer on their store. Raises SinkError."""
    from live_seg.fleet.stores import exists

    for job in jobs:
        for path, url in job.uploads.items():
            if not exists(url):
                path.unlink(missing_ok=True)


def _suffix(settings: "VideoSettings") -> str:
    return ".mov" if settings.options.transparent else ".mp4"


def _settings(job: "Job", settings: "VideoSettings", workers: int) -> "Settings":
    from live_seg.fleet.file_run import Settings
    from live_seg.fleet.render import Style
    from live_seg.sinks.containers import container_for
    from live_seg.sinks.video_writer import codec_for

    options = settings.options
    video, alpha = job.video, options.transparent
    codec = codec_for(video, container_for(video, alpha=alpha), options.encoding()) if video else None
    style = Style(
        video=video.name if video else None,
        json=job.json is not None,
        draw=options.draw_function,
        every=settings.every,
        timing=settings.timing(),
        codec=codec,
        crf=options.crf,
        alpha=alpha,
    )
    return Settings(
        style,
        batch=options.batch,
        smooth=options.run_arguments["smooth"],
        fps=settings.fps,
        start=settings.part.get("start", 0.0),
        end=settings.part.get("end", math.inf),
        workers=workers,
        overwrite=options.overwrite,
    )


def _executor(settings: "VideoSettings", workers: int | None, ray: str | None) -> "Executor":
    from live_seg.fleet.executor import InProcess

    load = settings.options.with_network_threshold().load
    if ray is None and (workers or 1) == 1:
        return InProcess(load)
    from live_seg.fleet.remote import RayWorkers

    with keeping_handlers():  # Ray installs one for SIGTERM
        return RayWorkers(load, workers, ray)


def _report(
    jobs: Sequence["Job"], progress: "Progress", bar: ManyFilesBar, settings: "VideoSettings"
) -> "Report":
    """Return what shows the driver's messages: the progress bar, and a line for each file."""
    from live_seg.fleet.driver import Report

    options = settings.options
    for number, (job, file) in enumerate(zip(jobs, progress.files, strict=True)):
        if file.state == "complete":
            bar.skip(number)
            if not options.quiet:
                bar.bar.write(f"{job.source}: complete since an earlier run -> {_names(job)}")

    def complete(file: "FileRun") -> None:
        if options.quiet:
            return
        seconds = time.monotonic() - file.started
        name = f"{file.job.source}: " if len(jobs) > 1 else ""
        bar.bar.write(
            f"{name}{file.frames_done} frames in {seconds:.1f} s ({file.frames_done / seconds:.1f} fps), "
            f"{file.instances} instances; {options.model} with {file.device} -> {_names(file.job)}"
        )

    def failed(_: int, reason: str) -> None:
        bar.bar.write(f"live-seg: {reason}", file=sys.stderr)

    return Report(
        opened=bar.begin,
        advanced=bar.bar.update,
        complete=complete,
        failed=failed,
        completing=completing_now,
    )


def _names(job: "Job") -> str:
    return ", ".join(job.uploads.values() or map(str, job.outputs))


def _say(text: str, *, quiet: bool) -> None:
    if not quiet:
        print(clean(f"live-seg: {text}"), file=sys.stderr)
