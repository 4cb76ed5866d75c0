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
"""Characters."""

SHORTEST_TEXT = 20
"""Characters of text per line at least, however narrow the terminal is."""


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print the findings as one JSON object.")] = False,
) -> None:
    """Check this machine: packages, CPU, GPU, OpenCV, ffmpeg, weights, cameras, and a test segmentation.

    The exit code is 0 only if segmenting a file would work.
    """
    from live_seg.doctor.checks import CHECKS
    from live_seg.doctor.findings import verdict

    width = max(len(check.name) for check in CHECKS) + 2
    findings = []
    for check in CHECKS:
        if not json:
            print(check.name.ljust(width), end="", flush=True)  # some checks take seconds
        finding = check.run()
        findings.append((check, finding))
        if not json:
            print(_formatted(finding, width))
    if json:
        works = all(finding.state != "bad" for _, finding in findings)
        records = [{"name": check.name, **asdict(finding)} for check, finding in findings]
        print(dumps({"works": works, "findings": records}, indent=2))
        verdict(findings)
    else:
        print(verdict(findings))


def _formatted(finding: "Finding", indent: int) -> str:
    """Return state, message and remedy; on a terminal coloured and wrapped to its width.

    The first line continues a line that already has `indent` characters.
    """
    terminal = sys.stdout.isatty()
    columns = shutil.get_terminal_size().columns if terminal else sys.maxsize
    margin = " " * (indent + STATE_WIDTH)
    texts = [finding.message] + ([f"-> {finding.remedy}"] if finding.remedy else [])
    lines = [
        textwrap.fill(
            " ".join(text.split()),
            max(columns, len(margin) + SHORTEST_TEXT),
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
