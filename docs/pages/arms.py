"""The page of the arms, from their records."""

from pipeline.arms import ARMS


def page() -> str:
    """A section for each arm, as Markdown."""
    parts = [
        "# Arms",
        "An arm is one way to train a model for a task. All arms see the same training rows.",
    ]
    for arm in ARMS.values():
        rates = [f"`{part}_lr`" for part in arm.parts]
        optional = "".join(f" With `{part}_lr`, also {part}." for part in arm.optional_parts)
        own = [f"`{key}`" for key in arm.own_params]
        parts += [
            f"## `{arm.name}`: {arm.title}",
            arm.glossary,
            f"- Trained parts: {', '.join(arm.parts)}. "
            f"Learning rates: {', '.join(rates)}.{optional}"
            if arm.parts
            else "- Trained parts: none. It is only for tasks that the language modeling head of "
            "the backbone predicts: generated text and verbalizers.",
            f"- Params of its own: {', '.join(own) or 'none'} ([all params](params.md)).",
        ]
        if arm.served_alone:
            parts.append(f"- Its artifacts are loaded alone: {arm.served_alone}.")
    return "\n\n".join(parts) + "\n"
