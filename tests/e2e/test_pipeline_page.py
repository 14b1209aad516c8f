"""The pipeline page in a real browser: live under load, for keyboard and screen reader, and only for who may look.

Needs Chromium (`chromium` of Debian, or Google Chrome); `.ci/run` installs it where it can.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from confluent_kafka import Producer
from playwright.sync_api import Browser, Page, expect, sync_playwright

from connectors.flows import FLOWS
from fanline import database
from tests.conftest import CHECKOUT, Stack

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
SECONDS_MS = 1_000

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    arguments = ["--disable-background-networking", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield launched
        launched.close()


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """The page; fails when it logs an error, which a breach of its security policy does too."""
    with closing(browser.new_context(**options)) as context:
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        page.goto(f"{url}/pipeline")
        yield page
        refusals = [error for error in errors if "status of 401" not in error and "status of 403" not in error]
        assert refusals == []


@pytest.fixture
def page(browser: Browser, system: Stack) -> Iterator[Page]:
    with opened(browser, url_of(system)) as found:
        expect(found.locator("#flows tbody tr")).to_have_count(len(FLOWS), timeout=30 * SECONDS_MS)
        yield found


def url_of(system: Stack) -> str:
    return f"http://{system.settings.host}:{system.settings.api_port}"


def cell(page: Page, table: str, row: str, column: str) -> Any:
    """The locator of a figure, found as a reader finds it: by the headings of its row and column."""
    headings = page.locator(f"#{table} thead th").all_inner_texts()
    return page.locator(f"#{table} tbody tr[data-key='{row}'] > :nth-child({headings.index(column) + 1})")


def test_the_page_shows_every_stage_flow_and_connector(page: Page) -> None:
    stages = page.get_by_role("region", name="Stages").get_by_role("heading", level=3)
    assert stages.all_inner_texts() == ["Database", "Debezium", "Kafka", "Dataflows", "Stores", "API"]
    assert page.locator("#flows tbody th").all_inner_texts() == list(FLOWS)
    assert page.locator("#connectors tbody th").all_inner_texts() == ["fanline-cdc", "fanline-outbox"]
    expect(cell(page, "connectors", "fanline-cdc", "State")).to_have_text("running")
    for flow in FLOWS:
        expect(cell(page, "flows", flow, "State")).to_have_text(re.compile("up to date|behind"))


def test_the_figures_follow_a_load_while_it_runs(page: Page, system: Stack) -> None:
    arguments = ("--people", "20", "--follows", "60", "--posts", "150", "--rate", "40", "--name", "pipelinepage")
    load = threading.Thread(target=lambda: system.fanline("load", *arguments, check=False))
    load.start()
    try:
        busy = re.compile(r"^[\d,]*[1-9][\d,]*\.\d$")
        for flow in ("timelines", "cards"):
            expect(cell(page, "flows", flow, "Records a second")).to_have_text(busy, timeout=60 * SECONDS_MS)
        kafka = page.locator("[data-stage='kafka'] dd").first
        expect(kafka).to_have_text(busy, timeout=20 * SECONDS_MS)
    finally:
        load.join()
    expect(cell(page, "flows", "timelines", "Records a second")).to_have_text("0.0", timeout=30 * SECONDS_MS)
    expect(cell(page, "flows", "timelines", "Records behind")).to_have_text("0")


def test_a_dead_letter_appears_and_goes_when_it_is_dropped(page: Page, system: Stack) -> None:
    figure = cell(page, "flows", "cards", "Dead letters")
    before = int(figure.inner_text())
    producer = Producer({"bootstrap.servers": f"{system.settings.host}:{system.settings.kafka_port}"})
    producer.produce("cdc.mutes", b"no change", b"pipeline-page")
    assert producer.flush(10) == 0
    expect(figure).to_have_text(str(before + 1), timeout=20 * SECONDS_MS)
    # Announced to a screen reader, though not at once.
    expect(page.get_by_role("status")).to_contain_text("there are dead letters", timeout=20 * SECONDS_MS)
    system.fanline("dlq", "drop", "cards", "--topic", "cdc.mutes", "--yes")
    expect(figure).to_have_text(str(before), timeout=20 * SECONDS_MS)


def test_the_page_breaks_no_rule_of_accessibility(browser: Browser, system: Stack, scheme: Any) -> None:
    with opened(browser, url_of(system), color_scheme=scheme, viewport={"width": 420, "height": 800}) as page:
        expect(page.locator("#flows tbody tr")).to_have_count(len(FLOWS), timeout=30 * SECONDS_MS)
        results = Axe().run(page, options=WCAG)
        assert results.violations_count == 0, results.generate_report()
        assert len(results.response["passes"]) > 20


def test_a_screen_reader_finds_landmarks_tables_and_a_polite_status(page: Page) -> None:
    assert page.get_by_role("banner").count() == page.get_by_role("main").count() == 1
    assert page.get_by_role("status").count() == 1
    table = page.get_by_role("table", name="What each dataflow reads")
    assert table.get_by_role("columnheader").count() == 8
    assert table.get_by_role("rowheader").all_inner_texts() == list(FLOWS)
    # Figures that change every second are outside of what is announced.
    assert page.locator("[aria-live], [role=status], [role=alert]").count() == 1


def test_the_page_works_with_the_keyboard_alone(page: Page, browser: Browser, system: Stack) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the figures")).to_be_focused()
    page.keyboard.press("Tab")
    pause = page.get_by_role("button", name="Pause")
    expect(pause).to_be_focused()
    page.keyboard.press("Space")
    expect(pause).to_have_attribute("aria-pressed", "true")
    seen = page.locator("#seen")
    held = seen.get_attribute("datetime")
    with opened(browser, url_of(system)) as other:
        # Another watcher of the same figures gets newer ones, twice.
        newer = other.locator("#seen")
        expect(newer).to_have_attribute("datetime", re.compile("Z$"), timeout=20 * SECONDS_MS)
        for _ in range(2):
            expect(newer).not_to_have_attribute("datetime", newer.get_attribute("datetime") or "")
    assert seen.get_attribute("datetime") == held
    page.keyboard.press("Space")
    expect(pause).to_have_attribute("aria-pressed", "false")
    expect(seen).not_to_have_attribute("datetime", held or "", timeout=5 * SECONDS_MS)
    for heading in ("Dataflows", "Connectors"):
        page.keyboard.press("Tab")
        expect(page.locator(".scroll:focus")).to_have_accessible_name(heading)


def test_a_reader_keeps_its_place_while_figures_change(page: Page) -> None:
    seen = page.locator("#seen")
    row = cell(page, "flows", "timelines", "Records a second").element_handle()
    held = seen.get_attribute("datetime")
    expect(seen).not_to_have_attribute("datetime", held or "", timeout=10 * SECONDS_MS)
    assert row.evaluate("element => element.isConnected")


@pytest.fixture(scope="module")
def closed_api(system: Stack) -> Iterator[str]:
    """An API whose pipeline is for moderators only."""
    with closing(socket.socket()) as found:
        found.bind((system.settings.host, 0))
        port = found.getsockname()[1]
    environment = system.environment | {"FANLINE_PIPELINE_PUBLIC": "false"}
    command = [sys.executable, "-m", "api", "--only", "pipeline,auth,accounts", "--port", str(port)]
    with subprocess.Popen(command, env=environment, cwd=CHECKOUT, stderr=subprocess.DEVNULL) as process:
        url = f"http://{system.settings.host}:{port}"
        deadline = time.monotonic() + 60
        while not answers(url):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield url
        process.terminate()
        assert process.wait(30) == 0


def answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/health/live", timeout=1).ok
    except requests.RequestException:
        return False


def sign_up(url: str, system: Stack, role: str) -> str:
    """The token of a new person with a role."""
    name = f"page{time.time_ns() // 1_000_000 % 10**10}"
    application = requests.post(
        f"{url}/api/v1/apps",
        {"client_name": "page", "redirect_uris": "urn:ietf:wg:oauth:2.0:oob", "scopes": "read write"},
        timeout=10,
    ).json()
    secrets = {key: application[key] for key in ("client_id", "client_secret")}
    form = {"grant_type": "client_credentials", "scope": "read write", **secrets}
    token = requests.post(f"{url}/oauth/token", form, timeout=10).json()["access_token"]
    person = {
        "username": name,
        "email": f"{name}@example.org",
        "password": "correct horse battery",
        "agreement": "true",
    }
    authorization = {"Authorization": f"Bearer {token}"}
    made = requests.post(f"{url}/api/v1/accounts", person, headers=authorization, timeout=10).json()["access_token"]
    with database.connect(system.settings, autocommit=True) as connection:
        connection.execute(
            "UPDATE identities SET role = %s WHERE user_id = (SELECT id FROM users WHERE username = %s)", (role, name)
        )
    return str(made)


def test_only_moderators_see_the_figures_of_a_server_that_is_not_local(
    browser: Browser, system: Stack, closed_api: str
) -> None:
    with opened(browser, closed_api) as page:
        token = page.get_by_label("Access token")
        expect(token).to_be_focused(timeout=20 * SECONDS_MS)
        assert page.locator("#flows tbody tr").count() == 0
        assert Axe().run(page, options=WCAG).violations_count == 0
        token.fill(sign_up(closed_api, system, "user"))
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_have_text(
            "This access token may not see the pipeline.", timeout=20 * SECONDS_MS
        )
        token.fill(sign_up(closed_api, system, "moderator"))
        page.keyboard.press("Enter")
        expect(page.locator("#flows tbody tr")).to_have_count(len(FLOWS), timeout=30 * SECONDS_MS)
        expect(token).to_be_hidden()


@pytest.mark.parametrize("path", ["/api/v1/pipeline", "/api/v1/pipeline/stream"])
def test_other_sites_and_strangers_are_refused(system: Stack, closed_api: str, path: str) -> None:
    assert requests.get(f"{closed_api}{path}", timeout=10).status_code == 401
    open_url = f"{url_of(system)}{path}"
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Host": "elsewhere.example"}):
        answer = requests.get(open_url, headers=headers, timeout=10)
        assert answer.status_code == 403, headers
        assert set(answer.json()) == {"error"}


def test_the_page_loads_nothing_from_elsewhere_and_cannot_be_framed(system: Stack) -> None:
    policy = requests.get(f"{url_of(system)}/pipeline", timeout=10).headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
