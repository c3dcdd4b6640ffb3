"""Atomic writes of files and folders: a reader never sees a part of the old or the new state.

These functions write all results. They write to a temporary sibling (`.tmp-*`) and then rename it.
The writer locks the sibling. If it is killed, the next writer of the same path removes what it has
left, except on file systems without locks. A folder is replaced by two renames: if the writer is
killed between them, nothing is at its path until the next writer puts the old folder back.
"""

import fcntl
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TextIO

OLD = "old"  # the replaced folder, in the temporary sibling


def atomic_write(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content` and sync it to disk.

    Text is written as UTF-8 with its line ends unchanged. Missing parent folders are created.
    """
    with _replacement(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_stream(path: Path, keep_partial: bool = False) -> Iterator[TextIO]:
    """Yield a text file (UTF-8, line ends unchanged); it becomes `path` when the block ends.

    If the block raises, the file is removed; with `keep_partial`, it becomes `path` in that case
    too. Surrogates, which UTF-8 cannot encode, are written as backslash escapes.
    """
    with (
        _replacement(path, keep_partial) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        yield file


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically; equal values give equal bytes (sorted keys, indent 2, final newline).

    Raises ValueError for NaN and infinity.
    """
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write(path, text + "\n")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it becomes `path` when the block ends.

    If the block raises, the new folder is removed. An existing `path` is replaced as a whole. A
    folder cannot be renamed to the name of a non-empty folder, so the old folder is moved aside
    first, and moved back if the second rename fails.
    """
    with _temporary(path, tempfile.mkdtemp) as work:
        new = work / "new"
        new.mkdir()
        yield new
        _sync_tree(new)
        _swap(new, path, work / OLD)
        _sync(path.parent)


def copy_file(source: Path, path: Path) -> None:
    """Replace `path` by a copy of `source` and sync it to disk."""
    with _replacement(path) as temporary:
        shutil.copyfile(source, temporary)


def in_project(path: Path) -> Path:
    """Return the path of a file of the project, also in an experiment's folder.

    `dvc exp run --temp` and `--queue` run in PROJECT/.dvc/tmp/exps/..., which lacks the files that
    git ignores, and where a relative path such as ../models leads elsewhere. A relative path that
    does not exist there is therefore taken from PROJECT.
    """
    if not path.exists():
        for folder in Path.cwd().parents:
            if folder.parts[-3:] == (".dvc", "tmp", "exps"):
                return folder.parents[2] / path
    return path


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _replacement(path: Path, keep_partial: bool = False) -> Iterator[Path]:
    """Yield an empty temporary file to fill; it becomes `path` as in `atomic_stream`."""
    with _temporary(path, _make_file) as temporary:
        try:
            yield temporary
        except BaseException:
            if keep_partial:
                _publish(temporary, path)
            raise
        else:
            _publish(temporary, path)


@contextmanager
def _temporary(path: Path, make: Callable[..., str]) -> Iterator[Path]:
    """Yield a locked temporary sibling of `path`, made by `make`; it is removed afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f".tmp-{glob.escape(path.name)}.????????"):
        _remove_if_unlocked(stale, path)
    while True:
        temporary = Path(make(dir=path.parent, prefix=f".tmp-{path.name}."))
        with _lock(temporary) as state:
            if state == "taken":  # another writer has removed it before it was locked
                continue
            try:
                yield temporary
            finally:
                _remove(temporary)
            return


def _make_file(dir: Path, prefix: str) -> str:
    handle, name = tempfile.mkstemp(dir=dir, prefix=prefix)
    os.close(handle)
    return name


def _remove_if_unlocked(stale: Path, path: Path) -> None:
    """Remove the temporary sibling of a killed writer of `path`; put back the old folder."""
    with _lock(stale) as state:
        if state != "held":
            return
        if (stale / OLD).exists() and not path.exists():
            os.replace(stale / OLD, path)
        _remove(stale)


@contextmanager
def _lock(temporary: Path) -> Iterator[Literal["held", "taken", "unsupported"]]:
    """Lock a temporary file or folder within the context.

    Yields "taken" if another process holds the lock or has removed the path, and "unsupported" if
    the file system has no locks, as some network file systems.
    """
    try:
        handle = os.open(temporary, os.O_RDONLY)
    except FileNotFoundError:
        yield "taken"
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            state: Literal["held", "taken", "unsupported"] = "held"
        except BlockingIOError:
            state = "taken"
        except OSError:
            state = "unsupported"
        yield state if temporary.exists() else "taken"
    finally:
        os.close(handle)


def _remove(temporary: Path) -> None:
    if temporary.is_dir():
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        temporary.unlink(missing_ok=True)


def _publish(temporary: Path, path: Path) -> None:
    _sync(temporary)
    temporary.chmod(0o666 & ~_umask())  # only the owner can read the files of mkstemp
    os.replace(temporary, path)
    _sync(path.parent)


def _swap(new: Path, path: Path, old: Path) -> None:
    if path.exists():
        os.replace(path, old)
    try:
        os.replace(new, path)
    except OSError:
        if old.exists():
            os.replace(old, path)
        raise


def _sync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
