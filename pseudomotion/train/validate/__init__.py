"""``pmg-validate``: what is pre-training on pseudo-motion worth? The shipped trainer on small models, in minutes to hours.

``arms`` lists what is compared, ``trial`` pre-trains one encoder and measures it, ``direction`` asks a frozen encoder how real videos move,
``report`` writes the results, and ``command`` puts them together. Not from the paper.
"""

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    from pseudomotion.train.validate import command

    return command.main(arguments)
