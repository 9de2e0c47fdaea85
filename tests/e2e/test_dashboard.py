"""The live pages in a real browser, and HTTP as programs use it."""

import json
import urllib.request

import pytest

from harness.browser import Browser, find_chromium
from harness.waiting import wait_for

pytestmark = pytest.mark.native_only
NEWEST = "2026.8.0"


@pytest.fixture
def browser(tmp_path):
    if not find_chromium():
        pytest.skip("no Chromium on PATH: install Debian's package chromium to test the pages in a browser")
    browser = Browser(tmp_path)
    yield browser
    browser.close()


@pytest.fixture
def busy(new_cluster):
    """A cluster with a worker of a nasty name, and a function that makes it work."""
    cluster = new_cluster(NEWEST, workers=1, name="<b>w&1")
    return cluster, lambda: cluster.run("dashboard.squares", 30)


def url(cluster, path):
    return f"http://127.0.0.1:{cluster.scheduler.dashboard_port}{path}"


def fetch(cluster, path, accept="*/*"):
    request = urllib.request.Request(url(cluster, path), headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def test_the_status_page_shows_the_cluster_live(browser, busy):
    cluster, work = busy
    browser.open(url(cluster, "/"))
    browser.wait_until("document.body && Number(document.body.dataset.messages) > 1")
    assert browser.evaluate("location.pathname") == "/status"
    work()
    browser.wait_until("parseInt(document.getElementById('stream-count').textContent) >= 30")
    assert browser.evaluate("document.querySelector('#workers-rows a').textContent") == "<b>w&1"
    # Something was painted.
    painted = """(() => { const canvas = document.getElementById('stream-canvas');
        return canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(x => x) })()"""
    assert browser.wait_until(painted)
    assert browser.evaluate("document.getElementById('state').textContent") == "live"


def test_pages_ask_nobody_else_and_complain_of_nothing(browser, busy):
    cluster, _ = busy
    own = [url(cluster, "/"), url(cluster, "/").replace("http", "ws", 1), "data:", "about:"]
    for path in ("/status", "/workers", "/tasks", "/system", "/individual-task-stream"):
        browser.open(url(cluster, path))
        browser.wait_until("document.body && Number(document.body.dataset.messages) > 0")
    assert [asked for asked in browser.requested() if not asked.startswith(tuple(own))] == []
    assert browser.complaints() == []


def test_a_page_finds_its_way_back_to_a_new_scheduler(browser, busy):
    cluster, _ = busy
    browser.open(url(cluster, "/status"))
    browser.wait_until("document.body && Number(document.body.dataset.messages) > 0")
    cluster.scheduler.kill_group()
    browser.wait_until("document.getElementById('state').className == 'off'")


def test_metrics_tell_of_what_happened(busy):
    cluster, work = busy
    work()

    def metric(name):
        _, text = fetch(cluster, "/metrics")
        lines = [line for line in text.splitlines() if line.startswith((name + " ", name + "{"))]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    # Workers tell in batches.
    wait_for(lambda: metric('oxidask_op_messages_total{peer="worker",op="task-finished"}') >= 30, 10)
    assert metric('oxidask_graphs_total{result="ok"}') >= 1
    assert metric("oxidask_graph_tasks_total") >= 30
    assert metric("oxidask_core_probes_total") > 0
    assert metric('oxidask_bytes_total{peer="worker",direction="out"}') > 0
    assert metric("process_resident_memory_bytes") > 1 << 20
    content_type, text = fetch(cluster, "/metrics", "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text") and text.endswith("# EOF\n")


def test_the_feed_is_for_programs_too(busy):
    cluster, work = busy
    work()
    _, text = fetch(cluster, "/json/feed.json")
    feed = json.loads(text)
    (worker,) = feed["workers"]
    assert (worker["name"], worker["status"], worker["nthreads"]) == ("<b>w&1", "running", 1)
    assert worker["memory"]["process"] > 0
    assert feed["scheduler"]["address"] == cluster.address


def test_probes_and_api_answer_by_default(busy):
    cluster, _ = busy
    assert fetch(cluster, "/health")[1] == "ok"
    assert fetch(cluster, "/ready")[1] == "ok"
    assert json.loads(fetch(cluster, "/api/v1/get_workers")[1])["num_workers"] == 1
