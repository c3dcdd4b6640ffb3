"""Ending with DVC, which started this process: killed, it stops no stage."""

import ctypes
import os
import signal
import sys
from pathlib import Path


def end_with_dvc() -> None:
    """Have Linux ask this process to stop when DVC is gone; stop at once where it is gone already."""
    if "DVC_ROOT" not in os.environ or sys.platform != "linux":
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() == 1 and b"dvc" not in Path("/proc/1/cmdline").read_bytes():  # whom the system gives orphans to
        raise SystemExit(128 + signal.SIGTERM)
