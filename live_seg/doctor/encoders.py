"""Check of the video encoders."""

from live_seg.doctor.findings import Finding
from live_seg.sinks.codecs import CODECS, HARDWARE, SOFTWARE, hardware
from live_seg.sinks.encoding import failure_of


def encoders() -> Finding:
    """Encode one frame with each encoder; list those that work for each codec, and why the others do not."""
    software = [f"{codec}: {SOFTWARE[codec].name}" for codec in CODECS if not failure_of(SOFTWARE[codec])]
    found, missing = list[str](), list[str]()
    for name in HARDWARE:
        failures = {codec: failure_of(hardware(name, codec)) for codec in CODECS}
        working = [codec for codec, failure in failures.items() if failure is None]
        if working:
            found.append(f"{name} ({', '.join(working)})")
        else:
            missing.append(f"{name} ({failures['h264']})")
    parts = [", ".join(software), f"hardware: {', '.join(found) or 'none'}"]
    return Finding("good", "; ".join([*parts, *([f"not {', '.join(missing)}"] if missing else [])]))
