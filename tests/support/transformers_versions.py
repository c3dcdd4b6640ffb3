"""`make test-versions`: the tests of model families on the oldest and the newest transformers.

The oldest is the lower bound in setup.cfg. The newest is what pip finds.
"""

import re
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.host_environment import make_environment
from tests.support.paths import ROOT

TESTS = ("tests/pipeline/model/test_families.py",)
# Older versions call functions that torch deprecates; setup.cfg makes warnings errors.
OPTIONS = ("-W", "ignore::DeprecationWarning")


def main() -> None:
    """Test both versions. Raises CalledProcessError if a test fails."""
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    (oldest,) = re.findall(r"(?m)^    transformers>=(\S+)$", setup)
    for requirement in (f"transformers=={oldest}", "transformers"):
        with TemporaryDirectory() as name:
            variables = make_environment(Path(name), "--upgrade", requirement)
            shown = "import transformers; print('transformers', transformers.__version__)"
            subprocess.run(["python", "-c", shown], env=variables, check=True)
            command = ["python", "-m", "pytest", *OPTIONS, *TESTS]
            subprocess.run(command, cwd=ROOT, env=variables, check=True)


if __name__ == "__main__":
    main()
