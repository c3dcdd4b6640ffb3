"""`python -m deep_prompt`: the command deep-prompt."""

from deep_prompt.cli.main import main

if __name__ == "__main__":
    main()
