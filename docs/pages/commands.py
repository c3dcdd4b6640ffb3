"""The page of the command line: the help of each command."""

import os
from unittest.mock import patch

from deep_prompt.cli import main


def page() -> str:
    """The help of deep-prompt and of its commands, as Markdown."""
    with patch.dict(os.environ, {"COLUMNS": "100"}):
        parser = main._parser()
        commands = parser._subparsers._group_actions[0].choices  # type: ignore[union-attr]
        parts = [f"# Commands\n\n{_block(parser.format_help())}"]
        for name, command in commands.items():
            parts.append(f"## {name}\n\n{_block(command.format_help())}")
    return "\n\n".join(parts) + "\n"


def _block(text: str) -> str:
    return f"```text\n{text.strip()}\n```"
