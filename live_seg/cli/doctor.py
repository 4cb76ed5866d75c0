"""The command `live-seg doctor`."""

import os
import shutil
import sys
import textwrap
from dataclasses import asdict
from json import dumps
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from live_seg.doctor.findings import Finding, State

COLOURS: "dict[State, str]" = {"good": "green", "note": "yellow", "bad": "red"}

STATE_WIDTH = max(map(len, COLOURS)) + 2


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print the findings as one JSON object.")] = False,
) -> None:
    """Check this machine: packages, CPU, GPU, OpenCV, ffmpeg, weights, cameras; and segment a picture.

    The exit code is 0 only when segmenting a file would work.
    """
    from live_seg.doctor.checks import CHECKS
    from live_seg.doctor.findings import verdict

    width = max(len(check.name) for check in CHECKS) + 2
    found = []
    for check in CHECKS:
        if not json:
            print(check.name.ljust(width), end="", flush=True)  # some take seconds
        finding = check.run()
        found.append((check, finding))
        if not json:
            print(_told(finding, width))
    if json:
        works = all(finding.state != "bad" for _, finding in found)
        findings = [{"name": check.name, **asdict(finding)} for check, finding in found]
        print(dumps({"works": works, "findings": findings}, indent=2))
        verdict(found)
    else:
        print(verdict(found))


def _told(finding: "Finding", indent: int) -> str:
    """The rest of a finding's line, and the lines below: on a terminal coloured, and wrapped to its width."""
    terminal = sys.stdout.isatty()
    columns = shutil.get_terminal_size().columns if terminal else sys.maxsize
    margin = " " * (indent + STATE_WIDTH)
    texts = [finding.told] + ([f"-> {finding.remedy}"] if finding.remedy else [])
    lines = [
        textwrap.fill(
            " ".join(text.split()),
            max(columns, len(margin) + 20),
            initial_indent=margin,
            subsequent_indent=margin,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for text in texts
    ]
    state = finding.state.ljust(STATE_WIDTH)
    if terminal and not os.environ.get("NO_COLOR"):
        state = typer.style(state, fg=COLOURS[finding.state])
    return state + "\n".join(lines)[len(margin) :]
