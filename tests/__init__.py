"""The tests, and the programs that some of them start."""

import contextlib

with contextlib.suppress(ModuleNotFoundError):
    # Loaded after TensorFlow, pylibsrtp ends the process with a segmentation fault.
    import pylibsrtp  # noqa: F401
