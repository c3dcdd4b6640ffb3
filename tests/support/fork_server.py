"""A fork server: it starts Python processes with torch and other libraries already imported.

An import of these libraries takes seconds. `start()` returns environment variables; with them,
`python` and `dvc` are fork_client.py, and each call requests a fork from this server. The server
never imports the code under test.

A fork differs from a new process in two ways: its parent is not the process that called `python`,
and /proc shows the arguments of the server. Therefore, tests that kill processes or search /proc
for them use an environment without these variables. A command runs in a new process if its
variables with a prefix of `READ_ONCE` differ from those of the server.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import io
import json
import multiprocessing
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

SUPPORTED = not Path("/dev/nvidiactl").exists()  # forks cannot use CUDA
FOLDER = "FORK_SERVER_FOLDER"
"""The variable with the folder of the running server."""
READ_ONCE = ("PYTHON", "OMP_", "GOMP_", "MKL_", "LD_", "HF_", "TRANSFORMERS_", "MPL")
"""Prefixes of the variables that Python and the libraries read only at the start."""
UNSET = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
"""The variables that the server does not have."""
SETTINGS = {
    "DS_ACCELERATOR": "cpu",
    "GOMP_SPINCOUNT": "10000",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "1",
}
"""The variables of the server. A stage sets all but the last two for itself and its processes."""
LIBRARIES = (
    "pyarrow.dataset",
    "pyarrow.parquet",
    "pandas",
    "torch._dynamo",
    "torch.utils.cpp_extension",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.bert.modeling_bert",
    "safetensors.torch",
    "deepspeed",
    "deepspeed.module_inject.auto_ep_layer",
    "deepspeed.ops.op_builder.all_ops",
    "datasets",
    "matplotlib.backends.backend_svg",
    "matplotlib.pyplot",
    "jinja2",
    "rich.progress",
    "ruamel.yaml",
    "dvc.cli.parser",
    "dvc.repo",
)


@functools.cache
def start() -> dict[str, str]:
    """Environment variables for clients of the server. Start the server if there is none.

    On a machine with a GPU the result is empty, and all commands run in new processes.
    """
    if not SUPPORTED:
        return {}
    folder = Path(os.environ[FOLDER]) if FOLDER in os.environ else start_server()
    deadline = time.monotonic() + 300
    while not (folder / "socket").exists():
        assert time.monotonic() < deadline, "the fork server does not start"
        time.sleep(0.05)
    path = [str(folder), str(Path(sys.executable).parent), os.environ["PATH"]]
    return {**SETTINGS, "PATH": os.pathsep.join(path)}


def start_server() -> Path:
    """Start the server for this process and its children; returns its folder.

    The server ends with this process.
    """
    folder = Path(tempfile.mkdtemp(prefix="fork-server-"))
    server = subprocess.Popen(
        [sys.executable, __file__, folder],
        env={key: value for key, value in os.environ.items() if key not in UNSET} | SETTINGS,
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    atexit.register(_stop, server, folder)
    os.environ[FOLDER] = str(folder)
    return folder


def _stop(server: "subprocess.Popen[bytes]", folder: Path) -> None:
    server.communicate()  # the server ends when its standard input is closed
    shutil.rmtree(folder)


def serve(folder: Path) -> dict[str, Any]:
    """Fork for every connection until standard input is closed.

    Only the forks return from this function, with the request of the client.
    """
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()  # otherwise garbage collection in a fork copies all memory
    assert threading.active_count() == 1, "a fork has only the thread that forks"
    settings = {key: value for key, value in os.environ.items() if key.startswith(READ_ONCE)}
    info = {"python": sys.executable, "prefixes": READ_ONCE, "settings": settings}
    (folder / "server.json").write_text(json.dumps(info), encoding="utf-8")
    client = Path(__file__).with_name("fork_client.py").read_text(encoding="utf-8")
    for name in ("python", "dvc"):
        (folder / name).write_text(f"#!{sys.executable} -IS\n{client}", encoding="utf-8")
        (folder / name).chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "new-socket"))
        listener.listen()
        (folder / "new-socket").rename(folder / "socket")
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in ready:
                raise SystemExit
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                return _fork_and_supervise(connection)
            connection.close()
            with contextlib.suppress(ChildProcessError):  # no child is left
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def _fork_and_supervise(connection: socket.socket) -> dict[str, Any]:
    """Fork again: the parent forwards signals to the fork and reports its wait status.

    Only the fork returns from this function, with the request of the client.
    """
    size, streams, _, _ = socket.recv_fds(connection, 4, 3)
    with connection.makefile("rb") as stream:
        request: dict[str, Any] = json.loads(stream.read(int.from_bytes(size, "big")))
    process = os.fork()
    if process == 0:
        connection.close()
        for target, stream in enumerate(streams):
            os.dup2(stream, target)
            os.close(stream)
        return request
    for stream in streams:
        os.close(stream)
    process_end, watched = os.pidfd_open(process), [connection]
    while process_end not in select.select([process_end, *watched], [], [])[0]:
        number = connection.recv(1)
        os.kill(process, number[0] if number else signal.SIGKILL)
        if not number:  # the client was killed
            watched = []
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(os.waitpid(process, 0)[1].to_bytes(4, "big"))
    os._exit(0)


def run(request: dict[str, Any], python: str) -> None:
    """Run `python ARGUMENTS` in this fork; `python` becomes `sys.executable`.

    `multiprocessing` still starts new processes, because they look for their parent.
    """
    import numpy
    import torch

    os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    numpy.random.seed()
    torch.default_generator.seed()
    tempfile.tempdir = None  # TMPDIR may differ
    importlib.invalidate_caches()
    arguments = request["arguments"]
    if arguments[0] == "-u":
        arguments = arguments[1:]
        sys.stdout, sys.stderr = _unbuffered(sys.stdout), _unbuffered(sys.stderr)
    _run_main(arguments, python)


def _unbuffered(stream: Any) -> io.TextIOWrapper:
    raw = io.FileIO(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(raw, stream.encoding, stream.errors, "\n", write_through=True)


def _run_main(arguments: list[str], python: str) -> None:
    """Run a module, a command or a file as `__main__`."""
    first, *others = arguments
    folders = {"-m": os.getcwd(), "-c": ""}
    python_path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[0] = folders.get(first, os.path.dirname(os.path.abspath(first)))
    sys.path[1:1] = [os.path.abspath(folder) for folder in python_path if folder]
    sys.argv = [first, *(others[1:] if first in folders else others)]
    multiprocessing.set_executable(sys.executable)
    sys.executable = python
    main = sys.modules["__main__"] = ModuleType("__main__")
    if first == "-m":
        runpy._run_module_as_main(others[0])  # `python -m` calls this function
    elif first == "-c":
        exec(others[0], main.__dict__)
    else:
        main.__file__ = first
        exec(compile(Path(first).read_bytes(), first, "exec"), main.__dict__)


def _exit_code(error: BaseException) -> int:
    """Print an uncaught exception; returns the exit code, negative for a signal."""
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        print(error.code, file=sys.stderr)
        return 1
    sys.excepthook(type(error), error, error.__traceback__)
    return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1


def main(folder: Path) -> None:
    """Serve; in a fork, run the command and exit like Python.

    The memory of the libraries is not freed, because this is slow.
    """
    request, code = serve(folder), 0
    try:
        run(request, str(folder / "python"))
    except BaseException as error:
        code = _exit_code(error)
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BrokenPipeError):
            stream.flush()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
