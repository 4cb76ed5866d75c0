"""The command line: maps arguments to calls and errors to exit codes. Only `live_seg.cli` prints."""

import functools
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from live_seg import __version__
from live_seg.cli.commands import MARKUP, Group, add_commands
from live_seg.cli.messages import clean, messages_on_stderr
from live_seg.cli.native_messages import separate_stderr, suppress_native_logs
from live_seg.cli.signals import end_at_once, end_in_order, exit_code
from live_seg.cli.streams import open_closed_streams, tolerate_lost_readers
from live_seg.cli.weights import download_weights, list_weights, verify_weights
from live_seg.errors import LiveSegError, SinkError, SourceError, UsageError, WeightsError
from live_seg.sources.driver_thread import driver_calls_pending

EXIT_CODES = {UsageError: 2, SourceError: 3, SinkError: 3, WeightsError: 4}


app = typer.Typer(
    name="live-seg",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=MARKUP,
    context_settings={"help_option_names": ["-h", "--help"]},
)
weights_app = typer.Typer(help="List, download and verify the known weights.", no_args_is_help=True)


def main() -> None:
    """Run the program: the entry point of the `live-seg` command."""
    open_closed_streams()
    suppress_native_logs()
    separate_stderr()
    tolerate_lost_readers()
    end_in_order()
    try:
        app()
    except SystemExit as end:
        _leave_behind_stuck_reads(end.code)
        raise
    except KeyboardInterrupt as interrupt:  # before the command began, or after it ended
        sys.exit(exit_code(interrupt))
    finally:
        end_at_once()


def _leave_behind_stuck_reads(code: object) -> None:
    """Exit at once if a thread is still blocked in a camera driver or video library (see DriverThread)."""
    if driver_calls_pending():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def _print_version(requested: bool) -> None:
    if requested:
        print(f"live-seg {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Instance segmentation of webcams, videos and images with Mask R-CNN."""


def _reporting_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap `command` so that an exception becomes a message on stderr and an exit code."""

    @functools.wraps(command)
    def wrapper(**arguments: Any) -> None:
        try:
            with messages_on_stderr(quiet=arguments.get("quiet", False)):
                command(**arguments)
        except KeyboardInterrupt as interrupt:
            raise typer.Exit(exit_code(interrupt)) from None
        except LiveSegError as error:
            print(f"live-seg: {clean(error)}", file=sys.stderr)
            raise typer.Exit(_exit_code(error)) from None
        except BrokenPipeError:
            raise  # typer exits silently: the reader of stdout has closed it
        except Exception as error:
            if os.environ.get("LIVE_SEG_DEBUG"):
                raise
            print(f"live-seg: {clean(_unexpected(error))}", file=sys.stderr)
            print("Set LIVE_SEG_DEBUG=1 to see the traceback.", file=sys.stderr)
            raise typer.Exit(1) from None

    return wrapper


def _exit_code(error: LiveSegError) -> int:
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1)


def _unexpected(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"Out of memory. Use a smaller --size or --batch. {error}".rstrip()
    return f"unexpected {type(error).__name__}: {error}"


add_commands(app, _reporting_errors)
app.add_typer(weights_app, name="weights")
weights_app.command("list")(_reporting_errors(list_weights))
weights_app.command("download")(_reporting_errors(download_weights))
weights_app.command("verify")(_reporting_errors(verify_weights))
