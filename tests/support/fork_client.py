"""`python` and `dvc` for tests: a fork of the server (fork_server.py) runs the command.

The fork has the arguments, working directory, environment and standard streams of this process.
This process forwards signals to the fork and ends with the exit status of the fork.

The server copies this file into a folder that tests put first in PATH. The client starts in about
30 ms, because it has few imports and does not load site-packages.
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
FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def main() -> NoReturn:
    """Run the command in a fork, or in a new process if a fork would behave differently."""
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
    """Whether this process has the settings of the server, and supported arguments.

    The supported arguments are `-m`, `-c` or a file, with an optional `-u` before it.
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

        def forward(number: int, _: object) -> None:
            with contextlib.suppress(OSError):  # the fork has just ended
                server.send(bytes([number]))

        for number in FORWARDED:
            signal.signal(number, forward)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in STREAMS:  # otherwise a pipe stays open after the fork closes it
            os.dup2(nothing, stream)
        return int.from_bytes(server.recv(4), "big")


if __name__ == "__main__":
    main()
