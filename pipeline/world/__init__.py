"""The embedded default's corpora: one seeded grammar over one small world, written as NER, QA and SRL files."""

from pipeline.world.corpora import write_corpus

__all__ = ["write_corpus"]
