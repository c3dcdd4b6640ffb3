"""End together with the parent process. A process does not end with its parent by itself."""

import ctypes
import os
import signal
import sys
from pathlib import Path

from stages import PARENT


def end_with_dvc() -> None:
    """If DVC started this process, end when DVC ends. Exit at once if DVC has ended already.

    A stage calls this before it does any work. If DVC was killed during the imports before this
    call, the parent of this process is no longer `PARENT`.
    """
    if "DVC_ROOT" not in os.environ:
        return
    end_with(PARENT)
    # DVC was killed even before `PARENT` was read. In a container, DVC itself can be process 1.
    if PARENT == 1 and sys.platform == "linux":
        if b"dvc" not in Path("/proc/1/cmdline").read_bytes():
            raise SystemExit(128 + signal.SIGTERM)


def end_with(parent: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Get the signal `number` when the process `parent` ends (on Linux); exit if it has ended."""
    pr_set_pdeathsig = 1
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, number)
    if os.getppid() != parent:
        raise SystemExit(128 + number)
