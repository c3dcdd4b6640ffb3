"""One short module per DVC stage: paths and params in, files out.

Each module also runs as `python -m stages.NAME`.
"""

import os
import sys

RENAMED = {
    "check": "deep-prompt check",
    "cli": "deep-prompt",
    "members": "python -m stages.mixture_corpora",
    "parallel": "deep-prompt parallel",
    "preset": "deep-prompt preset",
    "show": "deep-prompt show",
}
"""Old names of modules -> the commands that replaced them."""

# In `python -m stages.NAME`, Python imports this package before it looks for the module.
if sys.argv[:1] == ["-m"]:
    module = next((word for word in sys.orig_argv if word.startswith("stages.")), "")
    if module.removeprefix("stages.") in RENAMED:
        raise SystemExit(
            f"error: python -m {module} has a new name; "
            f"write {RENAMED[module.removeprefix('stages.')]}"
        )

PARENT = os.getppid()
"""The process that started this one, read before the imports of a stage, which take seconds."""

# The OpenMP library of torch reads this variable when it is loaded. By default, waiting threads
# spin for a long time, and on a busy machine a training step then takes up to ten times as long
# (benchmarks/RESULTS.md).
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
