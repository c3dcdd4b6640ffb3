"""`python` and `dvc` for tests: a fork of the server (fork_server.py) does the work, with the
arguments, working directory, environment and standard streams of this process. This process passes
signals on and ends the way the fork ends.

The server copies this file into a folder that tests put first in PATH. It starts in about 30 ms: no
site-packages, few imports.
"""

import contextlib
import json
import os
import signal
import socket
import sys
from typing import Any, NoReturn

STREAMS = (0, 1, 2)
FOLDER = os.path.dirname(os.path.abspath(__file__))
PASSED_ON = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def main() -> NoReturn:
    """Run the command in a fork, or in a new Python where a fork would differ from it."""
    arguments = sys.argv[1:]
    if os.path.basename(__file__) == "dvc":
        arguments = ["-m", "dvc", *arguments]
    with open(os.path.join(FOLDER, "server.json"), encoding="utf-8") as file:
        server = json.load(file)
    if not _can_fork(arguments, server):
        os.execv(server["python"], [server["python"], *arguments])
    status = _run_in_fork(arguments)
    if os.WIFSIGNALED(status):
        with contextlib.suppress(OSError):  # SIGKILL has no handler to reset
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


def _can_fork(arguments: list[str], server: dict[str, Any]) -> bool:
    """Whether this process has the server's settings, and its arguments begin with `-m`, `-c` or a
    file, or `-u` and one of these.
    """
    prefixes = tuple(server["prefixes"])
    settings = {name: value for name, value in os.environ.items() if name.startswith(prefixes)}
    settings.pop("PYTHONPATH", None)
    first = arguments[arguments[:1] == ["-u"] :][:1]
    return settings == server["settings"] and (
        first in (["-m"], ["-c"]) or (bool(first) and not first[0].startswith("-"))
    )


def _run_in_fork(arguments: list[str]) -> int:
    """Run the command in a fork; returns its wait status."""
    request = {
        "arguments": arguments,
        "folder": os.getcwd(),
        "environment": dict(os.environ),
    }
    body = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(os.path.join(FOLDER, "socket"))
        socket.send_fds(server, [len(body).to_bytes(4, "big")], STREAMS)
        server.sendall(body)

        def pass_on(number: int, _: object) -> None:
            with contextlib.suppress(OSError):  # the fork has just ended
                server.send(bytes([number]))

        for number in PASSED_ON:
            signal.signal(number, pass_on)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in STREAMS:  # else a pipe would stay open after the fork has closed it
            os.dup2(nothing, stream)
        return int.from_bytes(server.recv(4), "big")


if __name__ == "__main__":
    main()
