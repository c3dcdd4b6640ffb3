"""Environments that take packages from this one, because torch takes minutes to install."""

import os
import subprocess
import sys
import venv
from pathlib import Path


def make_environment(folder: Path, *install: str) -> dict[str, str]:
    """Make an environment in `folder`; returns the variables for commands in it.

    `install` are the arguments of `pip install`. Packages that it installs hide those of this
    environment.
    """
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    hosts = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages / "host.pth").write_text("\n".join(hosts) + "\n", encoding="utf-8")
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install"]
    command = [*pip, "--quiet", "--disable-pip-version-check", *install]
    subprocess.run(command, env=kept, check=True)
    return kept | {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
