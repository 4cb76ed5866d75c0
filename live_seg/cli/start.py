"""The entry point of the `live-seg` command. Imports nothing before Ctrl-C is handled."""


def main() -> None:
    """Run the program. Ctrl-C while its modules are imported ends it without a traceback."""
    try:
        import signal

        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    from live_seg.cli.main import main as run

    run()
