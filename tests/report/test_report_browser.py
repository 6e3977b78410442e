"""The report in a real browser, as wide as a desk and as narrow as a phone."""

from __future__ import annotations

from pathlib import Path

import pytest
from chromium import Page
from report_cases import BENCHMARKS, CASES

from tinyr1v_ray.report.contents import read_contents
from tinyr1v_ray.report.page import render

pytestmark = pytest.mark.slow

PHONE_PX, DESK_PX = 390, 1280
SMALLEST_LETTERS_PX = 9.0


@pytest.fixture(scope="module")
def report(recipe_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(read_contents(recipe_run)), encoding="utf-8")
    return path


@pytest.fixture(params=[PHONE_PX, DESK_PX], ids=["phone", "desk"])
def page(request: pytest.FixtureRequest, browser: Page, report: Path) -> Page:
    browser.complaints.clear()
    browser.open(report, request.param)
    return browser


def test_nothing_goes_wrong_and_nothing_is_fetched(page: Page) -> None:
    assert page.evaluate("document.title") == "recipe_of_the_tests · Tiny-R1V on Ray"
    assert page.complaints == []


def test_every_image_is_shown(page: Page) -> None:
    page.evaluate("for (const entry of document.querySelectorAll('details')) entry.open = true")
    sizes = page.evaluate("[...document.images].map((image) => [image.complete, image.naturalWidth])")
    assert len(sizes) > 100 and all(complete and width > 0 for complete, width in sizes)


def test_every_link_leads_somewhere(page: Page) -> None:
    links = page.evaluate("[...document.links].map((link) => link.getAttribute('href'))")
    found = page.evaluate(
        "[...document.links].every((link) => document.getElementById(link.getAttribute('href').slice(1)))"
    )
    assert len(links) > 11 and found
    sections = page.evaluate("[...document.querySelectorAll('section')].map((section) => '#' + section.id)")
    assert set(sections) <= set(links)


def test_the_page_does_not_scroll_sideways(page: Page) -> None:
    page.evaluate("for (const entry of document.querySelectorAll('details')) entry.open = true")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    beyond = """[...document.querySelectorAll("main *, header *")].filter((part) => !part.closest(".scroll")
        && part.getBoundingClientRect().right > innerWidth + 0.5).map((part) => part.outerHTML.slice(0, 80))"""
    assert page.evaluate(beyond) == []
    wide = page.evaluate(
        "[...document.querySelectorAll('.scroll')].filter((box) => box.scrollWidth > box.clientWidth).length"
    )
    assert wide > 0 or page.evaluate("innerWidth") > PHONE_PX


def test_letters_are_large_enough(page: Page) -> None:
    """Of the page, and of the pictures, whose letters are 9.5 points high and shrink with the picture."""
    sizes = page.evaluate(
        "[...document.querySelectorAll('main *')].filter((part) => part.childNodes.length && part.checkVisibility())"
        ".map((part) => parseFloat(getComputedStyle(part).fontSize))"
    )
    assert min(sizes) >= SMALLEST_LETTERS_PX
    scales = page.evaluate(
        "[...document.querySelectorAll('figure img')].map((image) => image.clientWidth / image.getAttribute('width'))"
    )
    assert scales and 9.5 * min(scales) >= SMALLEST_LETTERS_PX


def test_filters_show_what_was_chosen(page: Page) -> None:
    choose = """((name, value) => { const form = document.querySelector('[data-for=items]');
        const field = form.elements[name]; field[field.type === 'checkbox' ? 'checked' : 'value'] = value;
        form.dispatchEvent(new Event('input')); })"""
    shown = "[...document.querySelectorAll('#items > details')].filter((card) => !card.hidden)"
    num_all = page.evaluate(f"{shown}.length")
    page.evaluate(f"{choose}('benchmark', '{BENCHMARKS[1]}')")
    assert page.evaluate(f"{shown}.every((card) => card.dataset.benchmark === '{BENCHMARKS[1]}')")
    assert 0 < page.evaluate(f"{shown}.length") < num_all
    page.evaluate(f"{choose}('model', 'amm'); {choose}('beside', 'base'); {choose}('differ', true)")
    visible = "[...card.querySelectorAll('.who > span')].filter((who) => !who.hidden).map((who) => who.dataset.model)"
    names = page.evaluate(f"{shown}.map((card) => {visible}.sort().join())")
    assert names and set(names) == {"amm,base"}
    assert page.evaluate("document.querySelector('[data-for=items] output').textContent").endswith("shown")
    page.evaluate(
        f"{choose}('benchmark', ''); {choose}('model', ''); {choose}('beside', ''); {choose}('differ', false)"
    )
    assert page.evaluate(f"{shown}.length") == num_all


def test_trainings_can_be_chosen(page: Page) -> None:
    page.evaluate(
        "(() => { const form = document.querySelector('[data-for=training-groups]');"
        " form.elements.model.value = 'math_grpo'; form.dispatchEvent(new Event('input')); })()"
    )
    shown = page.evaluate(
        "[...document.querySelectorAll('#training-groups > details')].filter((card) => !card.hidden)"
        ".map((card) => card.dataset.model)"
    )
    assert shown == ["math_grpo"] * 3


def test_dark_pages_are_dark_with_their_pictures(browser: Page, report: Path) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    source = "document.querySelector('figure img').currentSrc"
    browser.open(report, DESK_PX)
    light = browser.evaluate(colour), browser.evaluate(source)
    browser.open(report, DESK_PX, dark=True)
    dark = browser.evaluate(colour), browser.evaluate(source)
    assert light[0] == "rgb(253, 253, 252)" and dark[0] == "rgb(22, 25, 29)" and light[1] != dark[1]


def test_without_scripts_everything_is_there(browser: Page, report: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(report, PHONE_PX)
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
        shown = browser.evaluate("[...document.querySelectorAll('.who > span')].filter((who) => !who.hidden).length")
        assert shown == len(CASES) * len(BENCHMARKS) * 20
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
