"""The page in a browser: charts, tooltips, keyboard, narrow screens; nothing is requested and nothing fails."""

import shutil
import time

import pytest

from lightning_green.report.html import html_page
from tests.report.test_html import ATTACK, write_run

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's packages chromium and chromium-driver"),
]


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"):
        options.add_argument(argument)
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def open_page(browser, tmp_path, reports, width=1280):
    from selenium.webdriver.support.ui import WebDriverWait

    path = tmp_path / "report.html"
    path.write_text(html_page(reports))
    browser.set_window_size(width, 900)
    browser.get(path.as_uri())
    WebDriverWait(browser, 60).until(lambda one: one.find_elements("css selector", "[data-chart] svg"))
    return path


def errors(browser):
    return [one["message"] for one in browser.get_log("browser") if one["level"] in ("SEVERE", "WARNING")]


@pytest.mark.parametrize("width", [390, 800, 1280])
def test_charts_are_drawn_at_each_width(browser, tmp_path, width):
    open_page(browser, tmp_path, [write_run(tmp_path / "run", "why")], width)
    charts = browser.find_elements("css selector", "[data-chart] svg")
    assert len(charts) == 5
    assert all(len(one.find_elements("css selector", "path")) > 3 for one in charts)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert errors(browser) == []


def test_hover_shows_the_reason_of_a_decision(browser, tmp_path):
    from selenium.webdriver import ActionChains

    open_page(browser, tmp_path, [write_run(tmp_path / "run", ATTACK)])
    chart = browser.find_element("css selector", '[data-chart="timeline"]')
    point = browser.execute_script(
        "const chart = echarts.getInstanceByDom(arguments[0]);"
        "const [at, value] = chart.getOption().series.find(one => one.name === 'decision').data[0];"
        "return chart.convertToPixel({xAxisIndex: 0, yAxisIndex: 0}, [at, value]);",
        chart,
    )
    width, height = chart.size["width"], chart.size["height"]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    offset = round(point[0] - width / 2), round(point[1] - height / 2)
    ActionChains(browser).move_to_element_with_offset(chart, *offset).perform()
    time.sleep(0.5)
    tooltip = chart.find_elements("css selector", "div")[-1].get_attribute("innerText")
    assert ATTACK in tooltip  # as text
    assert not browser.find_elements("css selector", "img")
    assert errors(browser) == []


def test_another_metric_is_chosen_with_the_keyboard(browser, tmp_path):
    report = write_run(tmp_path / "run", "first")
    validation = report.validations[0]
    validation.metrics["second"] = 7.0
    open_page(browser, tmp_path, [report])
    select = browser.find_element("css selector", "select")
    drawn = "return echarts.getInstanceByDom(document.querySelector('[data-chart=metric]')).getOption().series[0].name"
    assert browser.execute_script(drawn) == "first"
    select.send_keys("second")
    assert browser.execute_script(drawn) == "second"


def test_comparison_has_a_line_for_each_run(browser, tmp_path):
    open_page(browser, tmp_path, [write_run(tmp_path / "one", "a"), write_run(tmp_path / "two", "a")])
    series = browser.execute_script(
        "return echarts.getInstanceByDom(document.querySelector('[data-chart=compare-emitted]')).getOption()"
        ".series.map(one => one.name)"
    )
    assert series == ["one", "two"]
    assert errors(browser) == []


def test_dark_theme_changes_the_colors_of_the_charts(browser, tmp_path):
    from selenium.webdriver.support.ui import WebDriverWait

    open_page(browser, tmp_path, [write_run(tmp_path / "run")])
    color = "return echarts.getInstanceByDom(document.querySelector('[data-chart=emitted]')).getOption().color[0]"
    light = browser.execute_script(color)
    features = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
    try:
        WebDriverWait(browser, 10).until(lambda one: one.execute_script(color) != light)
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_charts_fit_their_columns_on_paper(browser, tmp_path):
    open_page(browser, tmp_path, [write_run(tmp_path / "run", "why")])
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.set_window_size(700, 900)
    try:
        browser.execute_script("dispatchEvent(new Event('beforeprint'))")
        widths = browser.execute_script(
            "return [...document.querySelectorAll('.chart')].map(one => [one.clientWidth, "
            "one.querySelector('svg').getBoundingClientRect().width, one.querySelector('svg').getAttribute('viewBox')])"
        )
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert len(widths) == 5
    assert all(picture <= column + 1 and box for column, picture, box in widths)
