"""The documentation site in a real browser, opened as files: quiet, without a request, nothing cut off, searchable."""

from urllib.parse import urlsplit

import pytest

pytestmark = pytest.mark.browser
PAGES = ("index", "tutorial", "hardware", "commands/train", "errors")


@pytest.mark.parametrize("width", [390, 768, 1400])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_as_a_file_and_is_not_cut_off(site, browser, page, width):
    browser.open(site / f"{page}.html", width=width)
    assert browser.complaints() == []
    assert {urlsplit(url).scheme for url in browser.requests()} <= {"file", "data"}
    assert browser.value("document.documentElement.scrollWidth") == width
    assert browser.value("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_the_search_works_without_a_server(site, browser):
    browser.open(site / "index.html", width=1400)
    browser.value("document.querySelector('[data-md-component=search-query]').focus()")
    browser.value(
        "(field => { field.value = 'group_size'; field.dispatchEvent(new Event('keyup', {bubbles: true})) })"
        "(document.querySelector('[data-md-component=search-query]'))"
    )
    found = browser.value(
        "new Promise(done => { const wait = setInterval(() => {"
        "const items = document.querySelectorAll('.md-search-result__item').length;"
        "if (items) { clearInterval(wait); done(items) } }, 50) })"
    )
    assert found > 3
