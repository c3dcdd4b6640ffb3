"""A function that runs step by step, so that other work can be done between two steps."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Steps(Generic[T]):
    """Runs a function in steps, each of which ends at a call of the function's callback.

    The function has a thread of its own, which runs only while `step` waits for it. Between two
    steps, the caller's thread is free for other work.
    """

    def __init__(self, function: Callable[[Callable[[str], None]], T]) -> None:
        self.result: Future[T] = Future()
        self._function = function
        self._piece: str | None = None
        self._resumed, self._paused = threading.Semaphore(0), threading.Semaphore(0)
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="steps", daemon=True)

    def step(self) -> str | None:
        """Run the function to its next call of the callback, and return the argument of the call.

        None at the end of the function; `result` is then done.
        """
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._resumed.release()
        self._paused.acquire()
        return self._piece

    def close(self) -> None:
        """End the function if it waits in its callback, which then raises an exception."""
        if self._thread.is_alive():
            self._is_closed = True
            self._resumed.release()
            self._thread.join()

    def _run(self) -> None:
        try:
            self.result.set_result(self._function(self._pause))
        except BaseException as error:  # The reader of `result` handles it.
            self.result.set_exception(error)
        self._piece = None
        self._paused.release()

    def _pause(self, piece: str) -> None:
        self._piece = piece
        self._paused.release()
        self._resumed.acquire()
        if self._is_closed:
            raise GeneratorExit
