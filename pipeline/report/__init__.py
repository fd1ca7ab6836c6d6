"""The report of a run: a self-contained HTML file, and a model card as Markdown.

gather.py     collects the data of a run from the metadata store and the artifact folders
evaluation.py reads the results of Evaluators
SECTION.py    one per section: returns the context of its template, or None to omit the section
card.py       the model card (Mitchell et al., 2019)
compare.py    the comparison of two runs
render.py     renders the templates and writes the files
"""

from kerasline.pipeline.report.render import Written, write_report

__all__ = ["Written", "write_report"]
