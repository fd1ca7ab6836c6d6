"""One self-contained HTML file about a run, and its model card as Markdown.

gather.py    from the metadata store and the artifact folders to values
SECTION.py   one a section: from these values to what its template shows, or None
card.py      the model card (Mitchell et al., 2019)
compare.py   two runs side by side
render.py    the templates, and the files written
"""

from kerasline.pipeline.report.render import Written, write_report

__all__ = ["Written", "write_report"]
