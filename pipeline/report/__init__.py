"""The report: scores, costs and training curves of all arms, as an HTML and a Markdown file."""

from pipeline.report.render import write_report

__all__ = ["write_report"]
