"""The source files that a module runs, found by the import statements in them."""

import ast
import functools
from collections.abc import Container, Iterable, Iterator
from pathlib import Path


def source_files(modules: Iterable[str], root: Path, packages: Container[str]) -> list[Path]:
    """The files of modules, and of all modules that they import directly or indirectly, sorted.

    Imports count everywhere in a file, also in functions and for type checking. A package counts
    with its `__init__.py`, and with the files beside it that are not Python, such as templates. A
    file with nothing but a docstring runs nothing and is left out. Imports with a computed name are
    not found.

    Args:
        modules: Full names.
        root: The folder with the packages.
        packages: Names of packages. Imports of other packages do not count.
    """
    pending, seen, files = list(modules), set[str](), set[Path]()
    while pending:
        module = pending.pop()
        parts = module.split(".")
        path = root.joinpath(*parts)
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if module in seen or parts[0] not in packages or not file.is_file():
            continue
        seen.add(module)
        code = _parse(file.read_text(encoding="utf-8"))
        if len(code.body) > (ast.get_docstring(code) is not None):
            files.add(file)
        if path.is_dir():
            files.update(_other_files(path))
        pending += [*_imported_names(code), module.rpartition(".")[0]]
    return sorted(files)


def _other_files(package: Path) -> Iterator[Path]:
    """The files of a package that are not Python; hidden files do not count."""
    for file in package.iterdir():
        if file.is_file() and file.suffix != ".py" and not file.name.startswith("."):
            yield file


_parse = functools.cache(ast.parse)  # many stages run the same files


def _imported_names(code: ast.Module) -> Iterator[str]:
    """The full names that a file imports: for `from a import b`, both `a` and `a.b`."""
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
