"""The record of random weights in place of those of a pretrained model. It needs no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RandomWeights:
    """Random weights of a backbone. They are not stored: the seed determines them.

    `sha256` is the hash of the weights, because other versions of the libraries, or a CPU with
    other instructions, may draw other numbers from the same seed. `versions` names the libraries
    that drew them.
    """

    seed: int
    sha256: str
    versions: str
