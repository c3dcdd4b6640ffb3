"""generate@KIND: write one of the embedded corpora, in the format of real corpora of its kind."""

from typing import cast

from pipeline.world import write_corpus
from pipeline.world.corpora import Kind
from stages.runtime.entry import log, log_wrote, run
from stages.runtime.params import load_params
from stages.runtime.paths import WORLD


def generate(kind: str) -> None:
    """Write data/world/KIND/{train,validation,test}.*"""
    params = load_params().generate
    folder = WORLD / kind
    counts = write_corpus(cast(Kind, kind), folder, params.rows, params.seed)
    log(", ".join(f"{split} {count}" for split, count in counts.items()) + " rows")
    log_wrote(folder)


if __name__ == "__main__":
    run(generate)
