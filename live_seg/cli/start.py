"""The entry point of the `live-seg` command."""

import signal


def main() -> None:
    """Run the program. Ctrl-C while its modules are imported ends it without a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from live_seg.cli.main import main as run

    run()
