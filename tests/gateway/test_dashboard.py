"""The dashboard in a real browser: what it shows changes under load, buttons do what they say, and nothing leaks out.

Set ZETA_SCREENSHOTS to a directory to keep what it looks like at 390 and 1280 pixels, light and dark.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from fake_gateway import ADMIN, MODELS, FakeGateway

from zeta.gateway._control import make_control_app
from zeta.gateway._state import State

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no chromium here: apt-get install chromium", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
expect = sync_api.expect

SHOTS = os.environ.get("ZETA_SCREENSHOTS")
HISTORY_S = 120
WITHIN_MS = 10_000


class Site:
    """A made-up gateway on a thread of its own, with requests that come and go ten times a second."""

    def __init__(self, **given: Any) -> None:
        self.gateway = FakeGateway(**given)
        self.is_loaded = True
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._is_up.wait(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/ui"

    def ask(self, do: Callable[[], Any]) -> Any:
        """Runs something on the gateway's thread."""

        async def done() -> Any:
            return do()

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(5)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        self._loop.run_until_complete(self._start())
        self._is_up.set()
        load = self._loop.create_task(self._load())
        self._loop.run_forever()
        load.cancel()
        self._loop.run_until_complete(asyncio.gather(load, return_exceptions=True))
        self._loop.run_until_complete(self._runner.cleanup())
        self.gateway.close()
        self._loop.close()

    async def _start(self) -> None:
        state = State(self.gateway, clock := _Shifted())
        for second in range(HISTORY_S):  # what a visitor finds who comes later
            clock.behind_ns = (HISTORY_S - second) * 1_000_000_000
            self.gateway.step(arrivals=18 + 10 * (second // 40 % 2), endings=20)
            state.sample()
        clock.behind_ns = 0
        self._runner = web.AppRunner(make_control_app(self.gateway, state=state), access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _load(self) -> None:
        while True:
            if self.is_loaded:
                self.gateway.step(arrivals=3, endings=2)
            self.gateway.read()
            await asyncio.sleep(0.1)


class _Shifted:
    """The machine's clock, some time ago."""

    def __init__(self) -> None:
        from zeta.clock import SteadyClock

        self._clock = SteadyClock()
        self.behind_ns = HISTORY_S * 1_000_000_000

    def now_ns(self) -> int:
        return self._clock.now_ns() - self.behind_ns


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield found
        found.close()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    found = Site(replicas=2)
    yield found
    found.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page; at its end nothing may have been asked elsewhere, been refused by the policy, or have failed."""
    contexts = []
    faults: list[str] = []

    def opened(url: str, *, width: int = 1280, scheme: str = "light", waits: bool = True) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        origin = url.removesuffix("/ui")
        page.on("console", lambda told: told.type == "error" and faults.append(told.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda asked: asked.url.startswith((origin, "data:")) or faults.append(asked.url))
        page.goto(url)
        if waits:
            expect(page.locator("#status-text")).to_have_text("Live")
        return page

    opened.faults = faults  # type: ignore[attr-defined]
    yield opened
    for context in contexts:
        context.close()
    assert faults == []


OpenPage = Callable[..., Any]


def shot(page: Any, name: str) -> None:
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)


def points(page: Any, chart: str) -> int:
    return int(page.locator(f"#chart-{chart} .plot").get_attribute("data-points") or 0)


def test_values_change_under_load_and_stand_still_when_paused(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    completed = page.locator("#tile-completed")
    before, points_before = completed.inner_text(), points(page, "queue")
    assert points_before >= HISTORY_S  # the server remembered what came before the page
    expect(completed).not_to_have_text(before, timeout=WITHIN_MS)
    page.wait_for_function(
        "n => Number(document.querySelector('#chart-queue .plot').dataset.points) > n",
        arg=points_before,
        timeout=WITHIN_MS,
    )
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#status-text")).to_have_text("Paused")
    held, points_held = completed.inner_text(), points(page, "queue")
    page.wait_for_timeout(1500)
    assert (completed.inner_text(), points(page, "queue")) == (held, points_held)
    page.get_by_role("button", name="Go on").click()
    expect(completed).not_to_have_text(held, timeout=WITHIN_MS)
    assert points(page, "queue") > points_held


def test_tables_say_what_the_router_says(site: Site, open_page: OpenPage) -> None:
    site.is_loaded = False
    try:
        page = open_page(site.url)
        assert page.locator("#models tbody th").all_inner_texts() == list(MODELS)
        for _ in range(WITHIN_MS // 100):  # who waits may still be moved from one model's account to another's
            texts = page.evaluate(
                "() => [...document.querySelectorAll('#tile-waiting, #tile-running, #models [data-label=Waiting]')]"
                ".map(each => each.innerText)"
            )
            stats = site.ask(site.gateway.router.stats)
            told = [stats["waiting"], stats["running"], *(row["waiting"] for row in stats["models"].values())]
            if (shown := [int(text.split()[0]) for text in texts]) == told:
                break
            page.wait_for_timeout(100)
        assert shown == told
        assert page.locator("#replicas tbody tr").count() == 6
        assert "NVIDIA H200 (made up)" in page.locator("#readings").inner_text()
        assert "ago" in page.locator("#readings td.age").first.inner_text()
        assert page.locator("#decisions tbody tr").count() == 8
        page.get_by_role("button", name="Show all 50").click()
        assert page.locator("#decisions tbody tr").count() == 50
        assert "canary" not in page.content()
    finally:
        site.is_loaded = True


def test_choosing_a_model_the_split_and_the_range_redraws(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    page.get_by_role("radio", name=MODELS[2]).click()
    assert page.locator("#chart-ttft .of").inner_text() == MODELS[2]
    queue = page.locator("#chart-queue .plot")
    assert MODELS[0] in (queue.get_attribute("aria-label") or "")
    page.get_by_role("button", name="by class").click()
    assert "urgent" in (queue.get_attribute("aria-label") or "")
    assert page.get_by_role("button", name="by class").get_attribute("aria-pressed") == "true"
    page.get_by_label("Show").select_option("60")
    page.wait_for_function("() => Number(document.querySelector('#chart-queue .plot').dataset.points) < 80")


def test_charts_are_read_with_the_arrow_keys(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    page.get_by_role("button", name="Pause").click()
    chart = page.locator("#chart-share .plot")
    chart.focus()
    at = page.locator("#chart-share .u-legend .u-series").first
    page.keyboard.press("Home")
    first = at.inner_text()
    page.keyboard.press("ArrowRight")
    assert at.inner_text() != first
    assert "%" in page.locator("#chart-share .u-legend").inner_text()


def test_everything_that_acts_is_reached_by_tab_and_shows_it(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    seen = []
    for _ in range(14):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("() => document.activeElement.id || document.activeElement.className || 'x'"))
        assert page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") != "none"
    for wanted in ("range", "pause", "theme", "by-model", "by-class", "plot"):
        assert any(wanted in each for each in seen), (wanted, seen)
    assert page.evaluate(
        "() => [...document.querySelectorAll('button,select,input')].every(e => e.innerText || e.labels?.length)"
    )


def test_a_replica_that_goes_down_is_seen(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    name = f"{MODELS[0]}-0"
    row = page.locator("#replicas tbody tr").filter(has_text=name)
    expect(row).to_contain_text("ready")
    site.gateway.down = {name: "refuses connections"}
    try:
        expect(row).to_contain_text("down", timeout=WITHIN_MS)
        expect(row).to_contain_text("refuses connections")
    finally:
        site.gateway.down = {}


def test_with_keys_beyond_loopback_the_page_asks_for_one(open_page: OpenPage) -> None:
    locked = Site(has_keys=True, open_metrics=False)
    try:
        page = open_page(locked.url, waits=False)
        form = page.locator("#key-form")
        expect(form).to_be_visible()
        page.get_by_label("This gateway asks for a key").fill("sk-wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#key-error")).to_have_text("That key is not let in.")
        page.get_by_label("This gateway asks for a key").fill(ADMIN)
        page.get_by_role("button", name="Use it").click()
        expect(page.locator("#status-text")).to_have_text("Live")
        expect(form).to_be_hidden()
        assert ADMIN not in page.content()
        told = open_page.faults  # type: ignore[attr-defined]
        assert all("401" in each for each in told)  # the browser tells of refused requests itself
        told.clear()
    finally:
        locked.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_width_and_can_be_read(site: Site, open_page: OpenPage, width: int, scheme: str) -> None:
    page = open_page(site.url, width=width, scheme=scheme)
    page.wait_for_timeout(300)
    shot(page, f"{width}-{scheme}")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) == []
    page.get_by_role("button", name="Theme: auto").click()  # light
    page.get_by_role("button", name="Theme: light").click()  # dark
    assert page.evaluate("() => document.documentElement.dataset.theme") == "dark"


CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  const low = [];
  for (const e of document.querySelectorAll('body *')) {
    const text = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!text || !e.offsetParent || ['SCRIPT', 'STYLE', 'OPTION'].includes(e.tagName)) continue;
    const a = light(rgb(getComputedStyle(e).color)), b = light(ground(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push(`${e.tagName} ${e.className} "${e.innerText.slice(0, 30)}" ${ratio.toFixed(2)}`);
  }
  return low.slice(0, 5);
}"""
