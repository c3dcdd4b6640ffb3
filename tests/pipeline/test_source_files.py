"""The files that a module runs: imports of all kinds, packages, and files that are not Python."""

from pathlib import Path

from pipeline.source_files import source_files

FILES = {
    "app/__init__.py": '"""Only a docstring."""\n',
    "app/main.py": """
        from typing import TYPE_CHECKING
        import os
        from app import plain
        from app.pages import drawn

        if TYPE_CHECKING:
            from app.types import Row

        def late():
            import app.late
    """,
    "app/plain.py": "from app.deep import function, main\n",
    "app/deep.py": "import app.main\nfunction = main = print\n",  # a cycle
    "app/types.py": "Row = int\n",
    "app/late.py": "import other.module\n",
    "app/unused.py": "number = 1\n",
    "app/pages/__init__.py": "from app.pages.drawn import draw\n",
    "app/pages/drawn.py": "draw = print\n",
    "app/pages/page.html": "<p>",
    "app/pages/.hidden": "",
    "other/__init__.py": "number = 2\n",
    "other/module.py": "number = 3\n",
}


def test_imports_are_followed_everywhere(tmp_path: Path) -> None:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = text.splitlines()
        path.write_text("\n".join(line.removeprefix(" " * 8) for line in lines), encoding="utf-8")

    def found(module: str, *packages: str) -> list[str]:
        files = source_files([module], tmp_path, packages)
        return [str(file.relative_to(tmp_path)) for file in files]

    of_main = [
        "app/deep.py",
        "app/late.py",
        "app/main.py",
        "app/pages/__init__.py",
        "app/pages/drawn.py",
        "app/pages/page.html",
        "app/plain.py",
        "app/types.py",
    ]
    assert found("app.main", "app") == of_main
    assert found("app.main", "app", "other") == [*of_main, "other/__init__.py", "other/module.py"]
    assert found("app.unused", "app") == ["app/unused.py"]
    assert found("app", "app") == []
    assert found("app.missing", "app") == []
