"""The model card: the sections of Mitchell et al. (2019), filled with what is known."""

from markdown_it import MarkdownIt

from kerasline.pipeline.report.card import WRITTEN_BY_PEOPLE, labelled
from tests.conftest import REPOSITORY
from tests.pipeline.report.conftest import call, report
from tests.pipeline.report.models import HOSTILE

# The paper's Figure 1, in its order.
SECTIONS = [
    "Model details",
    "Intended use",
    "Factors",
    "Metrics",
    "Evaluation data",
    "Training data",
    "Quantitative analyses",
    "Ethical considerations",
    "Caveats and recommendations",
]


def parsed(made):
    return MarkdownIt("commonmark", {"html": True}).enable("table").parse(made.card.read_text(encoding="utf-8"))


def headings(tokens):
    return [
        after.content for token, after in zip(tokens, tokens[1:]) if token.type == "heading_open" and token.tag == "h2"
    ]


def test_card_has_the_sections_of_the_paper(rich, penguins):
    for made in (rich, penguins):
        assert [title for title in headings(parsed(made)) if title != "Samples"] == SECTIONS
        assert all(title in made.text("card") for title in SECTIONS)


def test_card_has_samples_of_answers(rich):
    assert headings(parsed(rich)).count("Samples") == 1 and "a round zero" in rich.card.read_text()


def test_sections_for_people_to_fill_in_are_marked(penguins):
    card = penguins.card.read_text()
    assert card.count("**To fill in:**") == len(WRITTEN_BY_PEOPLE)
    assert card.count("**Ethical considerations**: **To fill in:**") == 1


def test_known_facts_are_filled_in(penguins, rich):
    card = penguins.card.read_text()
    for what in (
        "243 parameters",
        "epochs 2",
        "train 240, eval 37, test 67",
        "bill\\_length\\_mm\\_scaled",
        "Palmer penguins",
    ):
        assert what in card, what
    card = rich.card.read_text()
    for what in (
        "refused: accuracy at least 0.9 (kept)",
        "95% intervals (bootstrap)",
        "demographic parity by mean radius",
    ):
        assert what in card, what


def test_texts_are_escaped_in_the_card(rich):
    card = rich.card.read_text()
    assert HOSTILE not in card and "\\<script\\>" in card
    tokens = parsed(rich)
    inline = [child for token in tokens for child in token.children or ()]
    assert not [t for t in (*tokens, *inline) if t.type in ("html_block", "html_inline", "image", "link_open")]
    assert HOSTILE in "".join(child.content for child in inline if child.type in ("text", "text_special"))


def test_labelled_paragraphs_of_the_docstring_are_used():
    fields = labelled("Cells.\n\nIntended use: to try\nthings out.\n\nlicense: MIT\n\nNote: nothing\n\nFactors:\n")
    assert fields == {"Intended use": "to try things out.", "License": "MIT"}


def test_docstring_of_the_pipeline_file_is_on_the_card(tmp_path):
    file = tmp_path / "mine.py"
    source = (REPOSITORY / "tests" / "pipeline" / "quick.py").read_text()
    file.write_text('"""Numbers <b>joined</b>.\n\nIntended users: all of us.\n"""\n' + source.split('"""', 2)[2])
    assert call("run", file, "--root", tmp_path / "root").returncode == 0
    made = report(tmp_path / "root", "latest")
    card = made.card.read_text()
    assert "- **Intended users**: all of us." in card and "Numbers \\<b\\>joined\\</b\\>." in card
    assert "Intended users all of us." in made.text("card") and "Numbers <b>joined</b>." in made.text("overview")
