"""The page in a real browser: no errors, no requests, sortable tables, small screens, dark mode."""

import pytest

from tests.pipeline.report.browser import browser


@pytest.fixture(scope="module")
def page():
    with browser() as opened:
        yield opened


@pytest.fixture(params=["rich", pytest.param("penguins", marks=pytest.mark.slow)])
def made(request):
    return request.getfixturevalue(request.param)


def test_page_has_no_errors_and_makes_no_requests(page, made):
    page.open(made.html)
    page.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.complaints() == [] and page.requests() == []
    assert page.run("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")


UNFOLD = """
document.querySelectorAll('details').forEach(d => d.open = true);
document.querySelectorAll('[hidden]').forEach(e => e.hidden = false);
"""


def test_all_drawings_are_visible(page, made):
    page.open(made.html)
    page.run(UNFOLD)
    sizes = page.run("""return [...document.querySelectorAll('svg')].map(s => {
        const inner = s.getBBox(), outer = s.getBoundingClientRect();
        return [s.getAttribute('aria-label'), inner.width, inner.height, outer.width, outer.height] })""")
    assert sizes and all(min(size) > 5 for _, *size in sizes), sizes


def test_marks_and_texts_stay_within_their_drawings(page, made):
    page.open(made.html)
    page.run(UNFOLD)
    outside = page.run("""return [...document.querySelectorAll('svg')].flatMap(s => {
        const whole = s.viewBox.baseVal;
        return [...s.querySelectorAll('text, rect, circle, path')].filter(e => {
            const box = e.getBBox();
            return !e.getAttribute('transform') && (box.x < -1 || box.y < -1
                || box.x + box.width > whole.width + 1 || box.y + box.height > whole.height + 1);
        }).map(e => s.getAttribute('aria-label') + ': ' + e.outerHTML) })""")
    assert outside == []


def test_click_sorts_tables_in_both_directions(page, rich):
    page.open(rich.html)
    table = "document.querySelector('#metrics table')"
    values = f"return [...{table}.tBodies[0].rows].map(r => r.cells[1].textContent)"
    click = f"{table}.tHead.rows[0].cells[1].querySelector('button').click()"
    sort = f"return {table}.tHead.rows[0].cells[1].getAttribute('aria-sort')"
    before = page.run(values)
    page.run(click)
    up = list(map(float, page.run(values)))
    assert up == sorted(up) and page.run(sort) == "ascending" and sorted(page.run(values)) == sorted(before)
    page.run(click)
    assert list(map(float, page.run(values))) == up[::-1] and page.run(sort) == "descending"


def test_names_sort_alphabetically(page, rich):
    page.open(rich.html)
    names = "return [...document.querySelectorAll('#stages tbody th')].map(t => t.textContent)"
    before = page.run(names)
    page.run("document.querySelector('#stages table thead button').click()")
    assert page.run(names) == sorted(before) != before


def test_tables_sort_by_the_keyboard(page, rich):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    page.open(rich.html)
    button = page.driver.find_element(By.CSS_SELECTOR, "#stages thead th:nth-child(3) button")
    button.send_keys(Keys.ENTER)
    seconds = page.run(
        "return [...document.querySelectorAll('#stages tbody tr')].map(r => Number(r.cells[2].textContent))"
    )
    assert seconds == sorted(seconds) and len(set(seconds)) > 5


def test_missing_values_sort_last_in_both_directions(page, rich):
    page.open(rich.html)
    p = "return [...document.querySelectorAll('#metrics table.long tbody tr')].map(r => r.cells[7].dataset.sort)"
    click = "document.querySelectorAll('#metrics table.long thead th')[7].querySelector('button').click()"
    for _ in range(2):
        page.run(click)
        values = page.run(p)
        known = [value for value in values if value]
        assert 0 < len(known) < len(values) and values[: len(known)] == known


def test_slices_are_filtered_by_metric(page, rich):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    page.open(rich.html)
    seen = (
        "return [...document.querySelectorAll('#metrics [data-metric]')]"
        ".filter(e => e.getBoundingClientRect().height > 0).map(e => e.tagName + ' ' + e.dataset.metric)"
    )
    assert set(page.run(seen)) == {"TR accuracy", "FIGURE accuracy"}
    choice = Select(page.driver.find_element(By.CSS_SELECTOR, "#metrics select"))
    choice.select_by_visible_text("recall")
    assert set(page.run(seen)) == {"TR recall", "FIGURE recall"} and page.run(seen).count("TR recall") == 6
    choice.select_by_visible_text("all")
    assert len(page.run(seen)) == 6 * 6 + 6 * 2


@pytest.mark.parametrize("width", [320, 375, 768])
def test_narrow_page_never_scrolls_horizontally(page, made, width):
    page.open(made.html, width=width, height=700)
    page.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.run("return document.documentElement.scrollWidth") <= width
    wide = page.run("return [...document.querySelectorAll('.scroll')].some(s => s.scrollWidth > s.clientWidth)")
    assert wide or width > 400  # tables scroll within themselves


@pytest.mark.parametrize("dark", [False, True])
def test_page_follows_the_color_scheme(page, made, dark):
    page.open(made.html, dark=dark)
    for where, what in (("body", "backgroundColor"), ("section", "backgroundColor"), ("body", "color")):
        color = page.run(f"return getComputedStyle(document.querySelector('{where}')).{what}")
        brightness = sum(map(int, color.removeprefix("rgb(").rstrip(")").split(","))) / 3
        assert (brightness < 60) == (dark != (what == "color")), (where, what, color)


@pytest.mark.parametrize("dark", [False, True])
def test_texts_have_enough_contrast(page, made, dark):
    """The contrast to the background is at least 4.5 to 1, as WCAG 2.1 requires (success criterion 1.4.3)."""
    page.open(made.html, dark=dark)
    worst = page.run(CONTRAST)
    assert [pair for pair in worst if pair[0] < 4.5] == []


CONTRAST = """
const light = c => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4 };
const luminance = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
const parse = text => text.match(/[\\d.]+/g).map(Number);
const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
  if (c.length < 4 || c[3] > 0) return c } return [255, 255, 255] };
const found = new Map();
const texts = 'p, td, th, dt, dd, a, h2, h3, h4, figcaption, li, .state, .chart text:not(.on-heat, .on-paper)';
for (const e of document.querySelectorAll(texts)) {
  if (!e.textContent.trim() || !e.getBoundingClientRect().height) continue;
  const style = getComputedStyle(e);
  const ink = luminance(parse(e instanceof SVGElement ? style.fill : style.color)), paper = luminance(behind(e));
  const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  const key = e.tagName + '.' + (e.getAttribute('class') || '');
  const text = e.textContent.trim().slice(0, 40);
  if (!found.has(key) || found.get(key)[0] > ratio) found.set(key, [ratio, key, text]);
}
return [...found.values()];
"""


def test_print_opens_details_and_is_light(page, made):
    page.open(made.html, dark=True)
    closed = page.run("return document.querySelectorAll('details:not([open])').length")
    page.run("dispatchEvent(new Event('beforeprint'))")
    assert closed > 0 and page.run("return document.querySelectorAll('details:not([open])').length") == 0
    media = {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    assert page.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.run("return getComputedStyle(document.querySelector('nav')).display") == "none"
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    page.run("dispatchEvent(new Event('afterprint'))")
    assert page.run("return document.querySelectorAll('details:not([open])').length") == closed


def test_injected_script_would_not_run(page, rich, tmp_path):
    """Whatever came to stand in the page, its policy lets no other script run."""
    file = tmp_path / "injected.html"
    bad = '<script>document.title = "taken"</script><img src="data:," onerror="document.title = \'taken\'">'
    file.write_text(rich.html.read_text(encoding="utf-8").replace("</main>", bad + "</main>"), encoding="utf-8")
    page.open(file)
    assert page.run("return document.title") != "taken"
    assert any("Content Security Policy" in complaint for complaint in page.complaints())
