"""Ends of `live-seg serve` by signals, in a process of its own."""

import asyncio
import contextlib
import re
import signal
import subprocess
import sys

import pytest

from tests.clips import no_process_left_behind
from tests.stand_ins import ROOT
from tests.test_cli import STAND_IN, program
from tests.test_serve import SECONDS, visiting

if sys.platform == "win32":
    pytest.skip("needs the signals of POSIX", allow_module_level=True)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures(no_process_left_behind.__name__)]


async def see(url: str, visitors: int, process: subprocess.Popen[str], number: signal.Signals) -> int:
    """Send the signal once each of `visitors` has received an image. Return the exit code."""
    async with asyncio.timeout(SECONDS), contextlib.AsyncExitStack() as stack:
        for visitor in range(visitors):
            browser = await stack.enter_async_context(visiting(url, str(visitor)))
            assert await browser.connect() == 200
            await browser.first(lambda _: True)
        process.send_signal(number)
        return await asyncio.to_thread(process.wait, SECONDS / 2)  # a thread cannot be cancelled


@pytest.mark.parametrize("visitors", [0, 1])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_server_and_its_visits(number: signal.Signals, code: int, visitors: int) -> None:
    command = [*program(STAND_IN), "serve", "--address", "127.0.0.1:0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = re.match(r"live-seg: open (http\S+)\n", process.stderr.readline())
            assert found
            assert asyncio.run(see(found[1], visitors, process, number)) == code
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()
