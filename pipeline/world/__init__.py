"""The embedded default corpora: seeded NER, QA and SRL files, all from one grammar."""

from pipeline.world.corpora import write_corpus

__all__ = ["write_corpus"]
