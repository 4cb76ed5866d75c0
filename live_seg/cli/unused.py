"""Refuse options that would do nothing."""

from collections.abc import Sequence
from dataclasses import fields

from live_seg.cli.live_options import LiveOptions
from live_seg.cli.options import Options, StreamOptions
from live_seg.errors import UsageError

SOUNDLESS = "it applies to the sound of network streams. Leave it out."

HIDES_NOTHING = "it applies to --effect blur and pixelate. Choose one of them."


def refuse(options: Options, names: tuple[str, ...], reason: str) -> None:
    """Raise UsageError if one of the options called `names` differs from its default."""
    defaults = {field.name: field.default for field in fields(options)}
    for name in names:
        if getattr(options, name) != defaults[name]:
            switched_off = getattr(options, name) is False
            flag = f"--{'no-' if switched_off else ''}{name.replace('_', '-')}"
            raise UsageError(f"{flag} would do nothing: {reason}")


def refuse_unused(options: Options) -> None:
    """Raise UsageError for options of drawing that do nothing with the chosen effect."""
    if options.effect != "mask":
        names = ("alpha", "labels", "boxes")
        refuse(options, names, f"it applies to --effect mask, not {options.effect}. Leave it out.")
    if not options.hides:
        refuse(options, ("hide",), HIDES_NOTHING)


def _refuse_unused_hiding(options: StreamOptions) -> None:
    """Raise UsageError for options of hiding over time that do nothing with the chosen effect."""
    if not options.hides:
        refuse(options, ("fail_secure", "delay"), HIDES_NOTHING)


def refuse_unused_of_video(
    options: StreamOptions, source: str, *, writes_video: bool, audit: bool = False
) -> None:
    """Raise UsageError for options of a video or stream that do nothing with `source`, or for its output."""
    refuse_unused(options)
    _refuse_unused_hiding(options)
    if audit and not options.hides:
        raise UsageError(f"--audit would do nothing: {HIDES_NOTHING}")
    if not writes_video:
        reason = "no video is written. Give -o OUT.mp4, or leave it out."
        refuse(options, ("crf", "codec", "encoder", "sound"), reason)
    if "://" not in source:
        refuse(options, ("sound",), SOUNDLESS)
    if "://" not in source and not is_camera(source):
        names = ("timeout", "reconnect")
        refuse(options, names, f"{source} is a file; only streams and cameras can be lost. Leave it out.")
        refuse(options, ("delay",), f"{source} is a file, which is read ahead anyway. Leave it out.")


def refuse_unused_of_webcam(options: LiveOptions, sources: Sequence[str]) -> None:
    """Raise UsageError for options of a live session that do nothing with any of `sources`."""
    refuse_unused(options)
    _refuse_unused_hiding(options)
    if not any(map(is_camera, sources)):
        names = ("camera_size", "camera_fps", "camera_backend")
        refuse(options, names, "the source is no camera of this machine. Give --source NUMBER.")
    cameras = len(sources) > 1 and any(map(is_camera, sources))
    streams = any("://" in source for source in sources)
    if not (options.reconnect or cameras or streams):
        raise UsageError("--no-reconnect would do nothing: only streams reconnect. Leave it out.")
    if options.microphone is not None or not streams:
        refuse(options, ("sound",), SOUNDLESS)
    if not (options.record or options.record_on):
        refuse(options, ("segment",), "nothing is recorded. Give --record FILE or --record-on CLASS, too.")
    if not (options.record_on or options.on_event):
        refuse(options, ("zone",), "nothing waits for instances. Give --record-on CLASS or --on-event.")
    if not options.zone:
        refuse(options, ("zone_share",), "there is no zone. Give --zone, too.")
    if not options.record_on:
        refuse(options, ("pre", "post"), "it applies to recordings by class. Give --record-on CLASS, too.")


def is_camera(source: str) -> bool:
    """Return whether `source` names a camera of this machine."""
    return source.removeprefix("/dev/video").isdecimal()
