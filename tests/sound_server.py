"""A PulseAudio of the tests' own, with a null sink."""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

LOUD = 3000

SINK = "test_sink"
MONITOR = f"{SINK}.monitor"
RATE, SAMPLE_BYTES = 48_000, 4


@contextlib.contextmanager
def pulse_audio(folder: Path) -> Iterator[dict[str, str]]:
    """Run a PulseAudio whose files are in `folder`. Yields the environment of its clients."""
    if sys.platform != "linux" or not shutil.which("pulseaudio") or not shutil.which("pacat"):
        pytest.skip("needs pulseaudio and pacat: apt-get install pulseaudio pulseaudio-utils")
    socket = folder / "pulse.socket"
    environment = {
        **os.environ,
        "XDG_RUNTIME_DIR": str(folder),
        "HOME": str(folder),
        "PULSE_SERVER": f"unix:{socket}",
    }
    modules = (
        f"--load=module-null-sink sink_name={SINK} rate={RATE}",
        f"--load=module-native-protocol-unix socket={socket} auth-anonymous=1",
    )
    words = ("pulseaudio", "--daemonize=no", "--exit-idle-time=-1", "-n", *modules)
    with subprocess.Popen(
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as one:
        try:
            until = time.monotonic() + 10
            while not socket.exists():
                assert one.poll() is None
                assert time.monotonic() < until
                time.sleep(0.05)
            yield environment
        finally:
            one.terminate()


class Speaker:
    """Plays samples into the null sink as soon as it gets them."""

    def __init__(self, environment: dict[str, str]) -> None:
        words = ("pacat", "--raw", "--latency-msec=20", f"--rate={RATE}", f"--device={SINK}")
        self._process = subprocess.Popen(words, env=environment, stdin=subprocess.PIPE)
        # What is written before it is connected would wait in the pipe, and delay all that follows.
        until = time.monotonic() + 10
        while not subprocess.check_output(("pactl", "list", "short", "sink-inputs"), env=environment):
            assert time.monotonic() < until
            time.sleep(0.05)

    def play(self, samples: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(samples)
        self._process.stdin.flush()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Listener:
    """Notes when the null sink plays something, with a latency of 10 ms."""

    def __init__(self, environment: dict[str, str]) -> None:
        words = ("parec", "--raw", "--latency-msec=10", f"--rate={RATE}", f"--device={MONITOR}")
        self.heard = threading.Event()
        self._process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, bufsize=0)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        while chunk := self._process.stdout.read(4096):
            if np.abs(np.frombuffer(chunk[: len(chunk) // 2 * 2], "<i2")).max(initial=0) > LOUD:
                self.heard.set()

    def close(self) -> None:
        self._process.kill()
        self._thread.join()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
