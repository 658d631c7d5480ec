"""The page in headless Chromium: it loads without a complaint or a request, and every control does what it says."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
from report_runs import hostile_pool
from tiny_runs import delift

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
pytest.importorskip("uplot", reason="the drawing library is not installed: pip install 'delift-cli[report]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here: apt-get install chromium")
SIZE = 60
WIDTHS = (400, 1400)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    cache = tiny_runs.make_cache(folder / "pool.delift", hostile_pool(SIZE))
    assert delift("report", cache, "-o", folder / "report.html", "-q").code == 0
    return folder / "report.html"


@contextmanager
def page(
    browser: Any, file: Path, width: int = 1400, *, title: str = "delift report: pool.delift", **options: Any
) -> Iterator[Any]:
    """The page, put together; at the end it must have complained of nothing and asked nothing of any network."""
    context = browser.new_context(viewport={"width": width, "height": 900}, accept_downloads=True, **options)
    opened = context.new_page()
    faults: list[str] = []
    opened.on("console", lambda message: faults.append(f"{message.type}: {message.text}"))
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("dialog", lambda dialog: faults.append(f"dialog {dialog.message}"))
    opened.on("request", lambda request: faults.append(request.url) if not own(request.url, file) else None)
    opened.goto(file.as_uri())
    opened.wait_for_selector("html[data-ready=yes]")
    yield opened
    assert faults == []
    assert opened.title() == title  # no text from a record ran
    context.close()


def own(url: str, file: Path) -> bool:
    return url.split("#")[0] == file.as_uri() or url.startswith("blob:")


def rows(opened: Any, table: str) -> list[list[str]]:
    return [line.locator("td").all_inner_texts() for line in opened.locator(f"#table-{table} tbody tr").all()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits(browser: Any, report: Path, width: int, scheme: str) -> None:
    with page(browser, report, width, color_scheme=scheme) as opened:
        assert opened.evaluate("() => document.documentElement.scrollWidth") <= width
        assert opened.locator("#plot-map canvas").count() == 1
        box = opened.locator("#plot-map .canvas").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        paper = opened.evaluate("() => getComputedStyle(document.body).backgroundColor")
        assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 28)"}[scheme]


@pytest.mark.parametrize("width", WIDTHS)
def test_what_matters_leads_to_its_table(browser: Any, report: Path, width: int) -> None:
    with page(browser, report, width) as opened:
        tile = opened.locator(".tiles a", has_text="harm the others")
        assert tile.bounding_box()["y"] < 900  # on the first screen
        tile.focus()
        opened.keyboard.press("Enter")
        assert opened.evaluate("() => location.hash") == "#table-harmful"
        sync_api.expect(opened.locator("#table-harmful h3")).to_be_in_viewport()


@pytest.mark.parametrize("width", WIDTHS)
def test_two_caches_compared(browser: Any, tmp_path: Path, width: int) -> None:
    both = [tiny_runs.make_cache(tmp_path / f"{seed}.delift", hostile_pool(SIZE), seed=seed) for seed in (1, 2)]
    assert delift("report", *both, "-o", tmp_path / "r.html", "-q").code == 0
    with page(browser, tmp_path / "r.html", width, title="delift report: 1.delift and 2.delift") as opened:
        assert opened.evaluate("() => document.documentElement.scrollWidth") <= width
        opened.locator("#plot-values select").select_option("change")
        opened.locator("#table-changed tbody tr").first.get_by_role("button").click()
        sync_api.expect(opened.get_by_role("dialog")).to_contain_text("Helps most in B")


@pytest.mark.parametrize("width", WIDTHS)
def test_sort_filter_and_pages(browser: Any, report: Path, width: int) -> None:
    with page(browser, report, width) as opened:
        table = opened.locator("#table-records")
        header = table.locator("th", has_text="mean utility")
        place = table.locator("th").all_inner_texts().index("mean utility")
        header.get_by_role("button").click()
        assert header.get_attribute("aria-sort") == "descending"
        down = [float(row[place]) for row in rows(opened, "records")]
        assert down == sorted(down, reverse=True)
        header.get_by_role("button").press("Enter")  # the keyboard does what the mouse does
        assert header.get_attribute("aria-sort") == "ascending"
        up = [float(row[place]) for row in rows(opened, "records")]
        assert up == sorted(up)
        assert up[0] < down[-1]
        assert len(up) == 25
        table.get_by_role("button", name="Next page").click()
        assert len(rows(opened, "records")) == 25
        assert table.locator("[role=status]").inner_text() == "26–50 of 60"
        field = table.get_by_role("searchbox")
        field.fill("ask 17 ")
        assert [row[0].split()[0] for row in rows(opened, "records")] == ["17"]
        field.fill("mean < 0")
        assert all(float(row[place]) < 0 for row in rows(opened, "records"))
        field.fill("nothing has this")
        assert rows(opened, "records") == []
        field.fill("")
        assert len(rows(opened, "records")) == 25


@pytest.mark.parametrize("width", WIDTHS)
def test_export(browser: Any, report: Path, width: int) -> None:
    with page(browser, report, width) as opened:
        table = opened.locator("#table-records")
        table.get_by_role("searchbox").fill("ask 39")
        with opened.expect_download() as download:
            table.get_by_role("button", name="Export ids").click()
        assert Path(download.value.path()).read_text("utf-8") == "=39\n"
        with opened.expect_download() as download:
            table.get_by_role("button", name="Export CSV").click()
        head, line, _ = Path(download.value.path()).read_text("utf-8").split("\n")
        assert head.startswith('"id",')
        assert line.startswith('"\'=39",')  # no formula for a spreadsheet


@pytest.mark.parametrize("width", WIDTHS)
def test_a_record_opens_and_leads_to_its_helpers(browser: Any, report: Path, width: int) -> None:
    with page(browser, report, width) as opened:
        link = opened.locator("#table-records tbody tr").nth(4).get_by_role("button")
        link.focus()
        opened.keyboard.press("Enter")
        dialog = opened.get_by_role("dialog")
        assert dialog.get_by_role("heading").first.inner_text().split()[0] == "4"
        assert "say 4" in dialog.inner_text()
        assert "Is helped most by" in dialog.inner_text()
        helper = dialog.locator("ol button").first
        name = helper.inner_text()
        helper.click()
        sync_api.expect(dialog.get_by_role("heading").first).to_have_text(name)
        dialog.get_by_role("button", name="Back").click()
        sync_api.expect(dialog.get_by_role("heading").first).to_contain_text("4 ")
        opened.keyboard.press("Escape")
        sync_api.expect(dialog).to_be_hidden()
        assert link.evaluate("(element) => element === document.activeElement")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_map_shows_and_opens_what_it_points_at(browser: Any, report: Path, width: int) -> None:
    with page(browser, report, width) as opened:
        canvas = opened.locator("#plot-map .canvas")
        canvas.scroll_into_view_if_needed()
        canvas.focus()
        opened.keyboard.press("ArrowRight")
        tip = opened.locator("#tip")
        sync_api.expect(tip).to_be_visible()
        by_key = tip.inner_text()
        assert "ask" in by_key
        spot = opened.locator("#plot-map .here").bounding_box()
        canvas.evaluate("(element) => element.blur()")
        sync_api.expect(tip).to_be_hidden()
        opened.mouse.move(spot["x"] + spot["width"] / 2, spot["y"] + spot["height"] / 2)
        sync_api.expect(tip).to_be_visible()
        assert tip.inner_text() == by_key
        opened.mouse.click(spot["x"] + spot["width"] / 2, spot["y"] + spot["height"] / 2)
        sync_api.expect(opened.get_by_role("dialog")).to_be_visible()
        assert opened.get_by_role("dialog").get_by_role("heading").first.inner_text() == by_key.split("\n")[0]
        opened.keyboard.press("Escape")
        before = opened.locator("#plot-map .legend").inner_text()
        opened.locator("#plot-map select").select_option("mean")
        assert opened.locator("#plot-map .legend").inner_text() != before


def test_the_curve_says_its_figures(browser: Any, report: Path) -> None:
    with page(browser, report) as opened:
        over = opened.locator("#plot-curve .u-over")
        over.scroll_into_view_if_needed()
        over.hover()
        tip = opened.locator("#tip")
        sync_api.expect(tip).to_contain_text("the best 18 by fl")
        sync_api.expect(tip).to_contain_text("a random order")


def test_an_old_browser_unpacks_by_itself(browser: Any, report: Path, tmp_path: Path) -> None:
    context = browser.new_context()
    context.add_init_script("delete window.DecompressionStream")
    opened = context.new_page()
    opened.goto(report.as_uri())
    opened.wait_for_selector("html[data-ready=yes]")
    opened.locator("#table-records tbody tr").nth(2).get_by_role("button").click()
    sync_api.expect(opened.get_by_role("dialog")).to_contain_text("say 2")
    context.close()


def test_without_scripts_there_is_something_to_read(browser: Any, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(report.as_uri())
    assert "first 10 rows of each table" in opened.locator("noscript").first.text_content()
    assert opened.locator("#table-records tbody tr").count() == 10
    context.close()


def test_a_policy_that_holds(browser: Any, report: Path) -> None:
    """What gets into the page all the same does not run."""
    context = browser.new_context()
    opened = context.new_page()
    opened.goto(report.as_uri())
    opened.wait_for_selector("html[data-ready=yes]")
    opened.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "document.title = 'ran'";
            document.body.append(script);
            const holder = document.createElement("div");
            holder.innerHTML = "<img src=x onerror=\\"document.title = 'ran'\\">";
            document.body.append(holder);
        }"""
    )
    opened.wait_for_timeout(200)
    assert opened.title() != "ran"
    context.close()
