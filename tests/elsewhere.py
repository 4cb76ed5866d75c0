"""Simulate another operating system for live_seg, as far as possible.

    python -m tests.elsewhere win32 all COMMAND...

imports all modules of live_seg and runs `live-seg COMMAND...` while live_seg sees the given system:
`sys.platform`, `os.name` and `platform.system()` name it, and the modules, functions and signals that it
lacks are missing. Other packages see the real system; they could not work otherwise.

With `light` instead of `all`, a stand-in takes the place of the model, and modules that need one of `HEAVY`
are left out: importing these takes most of the time.
"""

import builtins
import importlib
import os
import pkgutil
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from types import ModuleType
from typing import Any, cast

POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
"""Modules of the standard library that Windows lacks."""

WINDOWS_SIGNALS = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM"}

POSIX_ONLY: dict[ModuleType, set[str]] = {
    os: {
        *("chown", "fork", "getegid", "geteuid", "getgid", "getpgid", "getuid", "killpg", "mkfifo", "mknod"),
        *("nice", "O_NOFOLLOW", "openpty", "posix_spawn", "sched_getaffinity", "setsid", "sysconf", "uname"),
        *("getloadavg", "statvfs", "sync", "WNOHANG"),
    },
    signal: {
        *(name for name in dir(signal) if name.startswith("SIG") and not name.startswith("SIG_")),
        *("alarm", "pause", "pthread_kill", "pthread_sigmask", "setitimer", "siginterrupt", "sigwait"),
        *("ITIMER_REAL", "SIG_BLOCK", "SIG_SETMASK", "SIG_UNBLOCK"),
    }
    - WINDOWS_SIGNALS,
    socket: {"AF_UNIX"},
}
"""What Windows lacks of modules that it has."""

LINUX_ONLY: dict[ModuleType, set[str]] = {
    os: {
        *("copy_file_range", "eventfd", "memfd_create", "O_TMPFILE", "pidfd_open", "posix_fadvise"),
        *("posix_fallocate", "sched_getaffinity", "sched_setaffinity", "splice", "getrandom"),
    },
    signal: {"SIGPOLL", "SIGPWR", "SIGRTMAX", "SIGRTMIN", "SIGSTKFLT", "sigtimedwait", "sigwaitinfo"},
    socket: {"AF_NETLINK", "AF_PACKET", "SOCK_CLOEXEC", "SOCK_NONBLOCK", "TCP_KEEPIDLE"},
    time: {"CLOCK_BOOTTIME", "pthread_getcpuclockid"},
}
"""What macOS lacks of modules that it has."""

HEAVY = ("aiortc", "jax", "keras", "nncf", "openvino", "ray", "tensorflow")

NEW_GROUP = 0x200
"""Value of `subprocess.CREATE_NEW_PROCESS_GROUP`, which exists on Windows only."""


class Seen(ModuleType):
    """A module of the standard library as live_seg sees it. A change to None hides the attribute."""

    def __init__(self, module: ModuleType, changes: Mapping[str, object]) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(_module=module, _changes=changes)

    def __getattr__(self, name: str) -> Any:
        if name not in self._changes:
            return getattr(self._module, name)
        if self._changes[name] is None:
            raise AttributeError(f"this system has no {self.__name__}.{name}")
        return self._changes[name]

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._module, name, value)


class WindowsPopen(subprocess.Popen[Any]):
    """Start a process as Windows does: without `preexec_fn` and sessions."""

    def __init__(self, args: Any, *, creationflags: int = 0, **others: Any) -> None:
        lacking = {"start_new_session", "preexec_fn", "pass_fds", "process_group"}
        assert not lacking & {name for name in others if others[name]}, "Windows does not know these"
        assert creationflags in (0, NEW_GROUP)
        super().__init__(args, **others)


def appear(system: str) -> None:
    """Make this process look to live_seg like `system`, a value of `sys.platform`."""
    name = {"win32": "Windows", "darwin": "Darwin"}[system]
    changes: dict[ModuleType, dict[str, object]] = {
        sys: {"platform": system},
        platform: {"system": lambda: name},
    }
    hidden: set[str] = set()
    for module, lacking in (POSIX_ONLY if system == "win32" else LINUX_ONLY).items():
        changes.setdefault(module, {}).update(dict.fromkeys(lacking))
    if system == "win32":
        hidden = POSIX_MODULES
        subprocess.Popen = WindowsPopen  # type: ignore[assignment, misc]
        changes[subprocess] = {"CREATE_NEW_PROCESS_GROUP": NEW_GROUP}
        changes[os]["name"] = "nt"
    seen = {module.__name__: Seen(module, attributes) for module, attributes in changes.items()}
    change_imports(seen, hidden)


def change_imports(seen: Mapping[str, ModuleType], hidden: set[str]) -> None:
    """Let imports in live_seg find the modules `seen` instead of the real ones, and none of the `hidden`."""
    really_import = builtins.__import__

    def changed(
        name: str,
        globals: Mapping[str, object] | None = None,  # noqa: A002
        *others: Any,
        **options: Any,
    ) -> ModuleType:
        if str((globals or {}).get("__name__")).partition(".")[0] == "live_seg":
            if name in hidden:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            if name in seen:
                return seen[name]
        return really_import(name, globals, *others, **options)

    builtins.__import__ = changed


def import_all(*, heavy: bool) -> int:
    """Import each module of live_seg, unless it needs a `heavy` package; return how many are imported."""
    import live_seg

    if not heavy:
        cast(dict[str, Any], sys.modules).update(dict.fromkeys(HEAVY))
    count = 0
    for module in pkgutil.walk_packages(live_seg.__path__, "live_seg."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if heavy or str(error.name).partition(".")[0] not in HEAVY:
                raise
        else:
            count += 1
    return count


if __name__ == "__main__":
    system, modules = sys.argv[1:3]
    appear(system)
    print(import_all(heavy=modules == "all"), "modules", flush=True)
    from live_seg.cli.main import main
    from live_seg.cli.options import Options

    if modules == "light":
        from tests.stand_ins import StandIn

        Options.load = lambda _: StandIn()  # type: ignore[assignment, method-assign, return-value]
    sys.argv[1:3] = []
    main()
