"""Write files and folders so that a reader, or a crash, sees the old state or the new one and never half of either."""

import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


def atomic_write(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content` (text as UTF-8, line ends kept); its folder is made if need be. Synced to disk on return."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".tmp-{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


@contextmanager
def atomic_stream(path: Path) -> Iterator[TextIO]:
    """A text file to write to, which becomes `path` when the block ends, in whatever way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".tmp-{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8", errors="backslashreplace") as file:
            yield file
    finally:
        os.replace(beside, path)


def write_json(path: Path, value: object) -> None:
    """Atomic, and the same bytes for equal values: sorted keys, indent 2, newline at the end. NaN raises ValueError."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write(path, text + "\n")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it becomes `path` when the block ends, and vanishes when the block raises.

    An existing `path` is replaced as a whole. A folder cannot be renamed over a filled one, so for that moment the old
    one is moved aside; if the swap itself fails it is moved back.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(
        f".tmp-{glob.escape(path.name)}.????????"
    ):  # by a writer that was killed
        shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".tmp-{path.name}."))
    new, old = work / "new", work / "old"
    new.mkdir()
    try:
        yield new
        _sync_tree(new)
        _swap(new, path, old)
        _sync(path.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
