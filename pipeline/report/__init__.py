"""The last stage's page: what every arm scored, what it cost, and how training went, as one HTML
file and one Markdown file.
"""

from pipeline.report.render import write_report

__all__ = ["write_report"]
