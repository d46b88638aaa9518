"""Test the web view: what it shows, also in a real browser, and what it must never show."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from jobdb.schema import VIEWS

from jobdb.model.times import now_ms
from tests.support.requirements import on_linux, require, require_module, require_root
from tests.support.worker_records import worker_info
from tests.support.workspace import Workspace

PROMPT = "<script>document.title = 'stolen'</script> sort\nten problems"
PASSWORD = "the-brokers-password"


class Response:
    """The response of the site."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.text = response.read().decode()


class Site:
    """A running ``jobdb ui``, and a client that sends only the cookie that it is given."""

    def __init__(self, workspace: Workspace) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jobdb.cli", "ui", "--port", "0"],
            env=workspace.env,
            cwd=workspace.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        parts = urlsplit(self.address)
        assert parts.hostname == "127.0.0.1" and parts.port, self.address
        self.port = parts.port
        self.key = parts.query.removeprefix("key=")
        self.cookie = f"jobdb_ui_{self.port}={self.key}"

    def get(
        self, path: str, *, cookie: str | None = None, host: str | None = None, method: str = "GET", **more: str
    ) -> Response:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Cookie": self.cookie if cookie is None else cookie, "Host": host or f"127.0.0.1:{self.port}"}
        headers |= {name.replace("_", "-"): value for name, value in more.items()}
        try:
            connection.request(method, path, headers=headers)
            return Response(connection.getresponse())
        finally:
            connection.close()

    def rows(self, path: str, **query: str) -> list[dict[str, Any]]:
        answer = self.get(f"{path}.json?{urlencode({'_shape': 'array', **query})}")
        assert answer.status == 200, answer.text
        found: list[dict[str, Any]] = json.loads(answer.text)
        return found

    def stop(self, number: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        """Stop it; return its exit code and its output after the address."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        try:
            out, errors = self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate(timeout=30)
            raise
        return self.process.returncode, out + errors


@pytest.fixture
def site(workspace: Workspace) -> Iterator[Site]:
    require_module("datasette", "jobdb[ui]")
    from jobdb.model import Broker, WorkBatch

    with workspace.registry() as registry:
        first = registry.register(
            job_id="first", agent="codex", prompt=PROMPT, broker=Broker("127.0.0.1"), broker_password=PASSWORD
        )
        registry.add_worker(worker_info("w1"))
        (claim,) = registry.work_batch(WorkBatch(worker_id="w1", worker="w", claim=1, log_dir="/logs")).claims
        assert claim.job_id == first.job_id
        registry.publish("first", "progress", detail="<b>step</b> 1", attempt=1)
        registry.ask("first", "answered <i>", key="answered", attempt=1)
        registry.answer("first", "deny", by="ann", key="answered")
        registry.ask("first", "delete all?", key="delete", attempt=1)
        registry.register(job_id="second", agent="human", prompt="wait")
        ended = registry.register(job_id="third", agent="codex", prompt="end")
        payload = registry.complete(ended.job_id).payload
        registry.accept(payload.replace("completed", "error"), subscriber="me")
    running = Site(workspace)
    yield running
    running.stop()


def test_pages(site: Site) -> None:
    start = site.get("/")
    assert start.status == 200 and "<title>jobdb</title>" in start.text
    assert {(row["job_id"], row["status"]) for row in site.rows("/jobs/v_jobs")} == {
        ("first", "running"),
        ("second", "pending"),
        ("third", "completed"),
    }
    listed = site.get("/jobs/v_jobs").text
    assert 'href="/jobs/job?job_id=first"' in listed and 'data-column="status"' in listed
    assert [row["job_id"] for row in site.rows("/jobs/v_jobs", agent="codex", status="running")] == ["first"]
    assert [row["job_id"] for row in site.rows("/jobs/waiting_for_permission")] == ["first"]
    assert [(row["job_id"], row["key"]) for row in site.rows("/jobs/open_questions")] == [("first", "delete")]
    assert [row["answer"] for row in site.rows("/jobs/v_questions", key="answered")] == ["deny"]
    assert "<b>1</b>open questions" in start.text
    assert [row["job_id"] for row in site.rows("/jobs/running_jobs")] == ["first"]
    assert [(row["job_id"], row["verdict"]) for row in site.rows("/jobs/refusals")] == [("third", "bad_signature")]
    assert [row["event"] for row in site.rows("/jobs/job", job_id="first")] == [
        "progress",
        "permission_required",
        "permission_required",
    ]
    for page in ("/jobs", *(f"/jobs/{view}" for view in VIEWS)):
        assert site.get(page).status == 200
    assert [(row["job_id"], row["log"]) for row in site.rows("/jobs/v_attempts")] == [("first", "/logs/first/1.log")]
    assert [(row["worker_id"], row["running"]) for row in site.rows("/jobs/v_workers")] == [("w1", 1)]
    for page, title in (("/jobs/durations", "durations"), ("/jobs/subscribers_behind", "subscribers behind")):
        assert f"<title>{title}</title>" in site.get(page).text
    job = site.get("/jobs/job?job_id=first").text
    assert "<title>Job first: running</title>" in job and "delete all?" in job
    assert "<script>document.title" not in job and "<b>step" not in job
    assert "No such job" in site.get("/jobs/job?job_id=%3Cb%3E").text


def test_new_events_appear_while_a_writer_works(site: Site, workspace: Workspace) -> None:
    with workspace.registry() as registry:
        for number in range(5):
            registry.publish("first", "progress", detail=f"news {number}", attempt=1)
            assert site.rows("/jobs/job", job_id="first")[-1]["detail"] == f"news {number}"


SECRET_PLACES = [
    "/jobs/tokens",
    "/jobs/tokens.json",
    "/jobs/tokens/1,1",
    "/jobs/TOKENS",
    "/jobs/specs",
    "/jobs/specs/1",
    "/jobs/jobs",
    "/jobs/settings",
    "/jobs/job_records",
    "/jobs/sqlite_schema",
    "/jobs.db",
    "/jobs?sql=select+sealed+from+tokens",
    "/jobs.json?sql=select+1",
    "/jobs/v_jobs?_where=(select+count(*)+from+tokens)",
    "/jobs/v_jobs.json?_where=1=1",
    "/_internal",
    "/_memory?sql=select+1",
    "/-/permissions",
]


def test_secret_places_are_not_shown(site: Site) -> None:
    for path in SECRET_PLACES:
        answer = site.get(path)
        assert answer.status in (302, 403, 404), (path, answer.text)
        assert "sealed" not in answer.text.replace(path, "")
    assert site.stop() == (0, "")


def test_time_bars_are_relative_to_the_longest_mean(site: Site, workspace: Workspace) -> None:
    moment = now_ms() - 10_000_000
    with workspace.registry(clock=lambda: moment) as registry:
        for agent, seconds in (("quick", 10), ("slow", 10), ("slow", 70)):
            job = registry.register(agent=agent, prompt="p", timeout_sec=0, idle_timeout_sec=0)
            claim = registry.claim(job_id=job.job_id, worker="w")
            moment += 1000 * seconds
            registry.complete(job.job_id, attempt=claim.attempt)
    page = site.get("/").text
    assert re.findall(r'jobdb-time" style="width: ([0-9.]+)%', page) == ["100.00", "25.00"]


def test_no_page_contains_a_secret(site: Site, workspace: Workspace) -> None:
    with workspace.registry() as registry:
        token = registry.tokens.show("first")
    pages = [
        "/",
        "/jobs",
        "/jobs/v_jobs",
        "/jobs/v_events",
        "/jobs/job?job_id=first",
        "/jobs/v_jobs.json",
        "/jobs.json",
    ]
    pages += ["/-/metadata.json", "/-/settings.json", "/-/databases.json", "/-/versions.json", "/-/threads.json"]
    for page in pages:
        answer = site.get(page)
        assert token not in answer.text and PASSWORD not in answer.text and site.key not in answer.text, page
    code, written = site.stop()
    assert code == 0 and token not in written and "Traceback" not in written


def test_access_requires_the_key(site: Site) -> None:
    for cookie in ("", "jobdb_ui=x", f"jobdb_ui_{site.port}=wrong", f"jobdb_ui_{site.port}="):
        for path in ("/", "/jobs/v_jobs.json", "/-/static/app.css", "/?key=wrong", "/?key="):
            answer = site.get(path, cookie=cookie)
            assert answer.status == 403 and "jobdb ui" in answer.text
    entered = site.get(f"/jobs/v_jobs?status=running&key={site.key}", cookie="")
    assert entered.status == 303 and entered.headers["Location"] == "/jobs/v_jobs?status=running"
    cookie = entered.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert site.get("/", cookie=cookie.partition(";")[0]).status == 200
    for path in ("//evil.example/", "/\\evil.example/", "/%5C%2fevil.example/"):
        assert site.get(f"{path}?key={site.key}", cookie="").headers["Location"] == "/evil.example/"


def test_other_names_and_methods_are_refused(site: Site) -> None:
    assert site.get("/", host="evil.example").status == 421
    assert site.get("/", host=f"evil.example:{site.port}").status == 421
    assert site.get("/", host=f"localhost:{site.port}").status == 200
    assert site.get("/jobs/v_jobs", method="POST").status == 405
    assert site.get("/jobs/v_jobs", method="DELETE").status == 405


def test_a_page_of_another_port_gets_nothing_with_the_cookie(site: Site) -> None:
    """The browser sends the cookie of 127.0.0.1 to every port, also from a page of another port."""
    assert site.get("/", Origin=f"http://127.0.0.1:{site.port}").status == 200
    assert site.get("/", Sec_Fetch_Site="same-origin").status == 200
    assert site.get("/", Sec_Fetch_Site="none").status == 200
    for origin in (f"http://127.0.0.1:{site.port + 1}", "http://127.0.0.1", "https://evil.example", "null"):
        assert site.get("/jobs/v_jobs.json", Origin=origin).status == 403
    for dest in ("iframe", "script", "image", "empty"):
        for where in ("same-site", "cross-site"):
            assert site.get("/", Sec_Fetch_Site=where, Sec_Fetch_Dest=dest, Sec_Fetch_Mode="navigate").status == 403
            assert site.get("/", Sec_Fetch_Site=where, Sec_Fetch_Dest=dest, Sec_Fetch_Mode="no-cors").status == 403


def test_the_cookie_of_one_run_is_invalid_in_another(site: Site, workspace: Workspace) -> None:
    other = Site(workspace)
    try:
        for cookie in (site.cookie, site.cookie.replace(str(site.port), str(other.port))):
            assert other.get("/", cookie=cookie).status == 403
    finally:
        other.stop()


@on_linux("tells whose process it is")
def test_another_user_gets_nothing_even_with_the_key(site: Site) -> None:
    require_root("being another user")  # without root, test_ui_peer.py has the rule
    nobody = 65534
    ask = (
        "import encodings.idna, http.client, os\n"
        f"os.setgid({nobody}); os.setuid({nobody})\n"
        f"connection = http.client.HTTPConnection('127.0.0.1', {site.port}, timeout=60)\n"
        f"connection.request('GET', '/', headers={{'Cookie': {site.cookie!r}}})\n"
        "print(connection.getresponse().status)\n"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", ask], capture_output=True, text=True, timeout=60)
    assert done.stdout == "403\n", done.stderr
    assert site.get("/").status == 200


def test_the_server_listens_only_on_the_loopback_interface(site: Site) -> None:
    import psutil

    places = {
        place.laddr.ip for place in psutil.Process(site.process.pid).net_connections() if place.status == "LISTEN"
    }
    assert places == {"127.0.0.1"}
    arguments = " ".join(psutil.Process(site.process.pid).cmdline())
    assert site.key not in arguments


def test_the_view_cannot_write(site: Site, workspace: Workspace) -> None:
    before = workspace.jobdb("query 'SELECT * FROM v_jobs' --json")
    site.get("/jobs/job?job_id=first'; DELETE FROM jobs; --".replace(" ", "+"))
    assert workspace.jobdb("query 'SELECT * FROM v_jobs' --json") == before
    assert "ok" in workspace.jobdb("doctor --full")


def test_databases_and_ports_that_cannot_be_served(workspace: Workspace, site: Site) -> None:
    for command, code, words in (
        (f"jobdb ui --port {site.port}", 1, "--port 0"),
        ("jobdb --db nowhere.db ui --port 0", 5, "no database"),
        ("jobdb --db postgresql://127.0.0.1/x ui --port 0", 2, "not a SQLite"),
    ):
        done = workspace.sh(command)
        assert done.returncode == code and words in done.stderr and not done.stdout, done.stderr


@pytest.fixture
def browser(workspace: Workspace, site: Site) -> Iterator[Any]:
    """Start headless Chromium with its driver."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    require(program is not None and driver is not None, "there is no Chromium with its driver")
    require_module("selenium", "selenium")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(program)
    switches = ["headless", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"]
    switches += ["disable-component-update", "disable-sync", "window-size=1200,1000", "disable-dev-shm-usage"]
    switches += [f"user-data-dir={workspace.root / 'chromium'}"]
    if os.geteuid() == 0:
        switches.append("no-sandbox")
    for switch in switches:
        options.add_argument(f"--{switch}")
    opened = webdriver.Chrome(options=options, service=Service(str(driver)))
    opened.set_page_load_timeout(60)
    try:
        yield opened
    finally:
        opened.quit()


def test_the_pages_work_in_a_browser(site: Site, browser: Any, workspace: Workspace) -> None:
    from selenium.webdriver.common.by import By

    browser.get(site.address)
    assert browser.title == "jobdb"
    assert "key=" not in browser.current_url
    tiles = browser.find_element(By.CLASS_NAME, "jobdb-tiles").text.split("\n")
    assert dict(zip(tiles[1::2], tiles[::2], strict=True))["running"] == "1"
    assert browser.find_element(By.CSS_SELECTOR, "#days .jobdb-running").size["width"] > 50
    browser.find_element(By.PARTIAL_LINK_TEXT, "all jobs").click()
    facets = browser.find_element(By.CLASS_NAME, "facet-results")
    assert "status" in facets.text and "agent" in facets.text
    facets.find_element(By.LINK_TEXT, "codex").click()
    assert len(browser.find_elements(By.CSS_SELECTOR, "table.rows-and-columns tbody tr")) == 2
    browser.find_element(By.LINK_TEXT, "first").click()
    assert browser.title == "Job first: running"  # and not what the script in the prompt would have changed it to
    timeline = browser.find_elements(By.CSS_SELECTOR, "#timeline tbody tr")
    assert len(timeline) == 3 and "delete all?" in timeline[2].text
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert loaded and all(name.startswith(f"http://127.0.0.1:{site.port}/") for name in loaded)
    assert len(browser.get_screenshot_as_png()) > 10_000


def test_the_redirect_file_of_open_works_in_a_browser(site: Site, browser: Any, workspace: Workspace) -> None:
    page = workspace.root / "jobdb.html"
    page.write_text(f'<meta http-equiv="refresh" content="0; url={site.address}">')
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(page.as_uri())
    WebDriverWait(browser, 60).until(lambda shown: shown.current_url.startswith("http://127.0.0.1"))
    assert browser.title == "jobdb", browser.page_source
