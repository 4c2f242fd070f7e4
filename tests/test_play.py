"""The playground: its states and its code without a browser, and the page in Chromium where there is one."""

import base64
import http.client
import io
import json
import re
import shutil
import threading

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from pseudomotion.images import load_image
from pseudomotion.play.server import Server
from pseudomotion.play.state import MIXES, Picture, State, controls, encode, show
from pseudomotion.transforms import ALL_TRANSFORMS

SMALL = {"frames": 3, "size": 64}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def run(code, folder, monkeypatch):
    """The frames of a program's ``clips``, (T, h, w, 3)."""
    monkeypatch.chdir(folder)
    names = {}
    exec(code, names)
    return names["clips"][0].permute(1, 2, 3, 0).numpy()


def frames_of(file):
    return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(Image.open(io.BytesIO(file)))])


@pytest.mark.parametrize(
    "values",
    [
        *({"transform": name, "id": 5} for name in ALL_TRANSFORMS),
        {"transform": "zoom", "ranges": {"ratio": [1.05, 1.1]}, "resampling": "composed", "padding": "border", "seed": 3},
        {"image": "noise", "crop": [0.3, 1], "id": 7},
        {"image": "upload", "transform": "cutmix"},
        *({"mix": name} for name in MIXES),
        {"objects": "mixed", "image": "upload"},
        {"objects": "yu2024"},
    ],
    ids=str,
)
def test_the_code_makes_the_clip_that_is_shown(values, picture_file, monkeypatch):
    uploads = {"upload": Picture(load_image(picture_file), picture_file.name)}
    shown = show(State.parse(SMALL | values), uploads)
    assert np.array_equal(run(shown.code, picture_file.parent, monkeypatch), shown.frames)
    assert "3 frames of 64x64" in shown.plan


def test_several_clips_stand_side_by_side():
    one = show(State.parse(SMALL | {"id": 2}), {}).frames
    both = show(State.parse(SMALL | {"id": 2, "resampling": "both"}), {}).frames
    assert both.shape == (3, 132, 64, 3)
    assert np.array_equal(both[:, :64], one)
    eight = show(State.parse(SMALL | {"eight": True}), {}).frames
    assert eight.shape == (3, 132, 268, 3)
    assert np.array_equal(eight[:, :64, 136:200], one)


@pytest.mark.parametrize("label", controls()["show"])
def test_labels_are_drawn(label):
    plain = show(State.parse(SMALL), {}).frames
    assert np.array_equal(show(State.parse(SMALL | {"show": label}), {}).frames, plain) == (label == "none")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "the page's state is not one of this version"),
        ({"path": "/etc/passwd"}, "the page's state is not one of this version"),
        ({"transform": "zom"}, "transform must be one of"),
        ({"transform": "zoom", "ranges": {"ratio": [0, 9]}}, "Zoom.ratio must be"),
        ({"frames": 10**6}, "frames must be from 1 to 64, got 1000000"),
        ({"size": 10**5}, "size must be from 64 to 320"),
        ({"id": -1}, "id must be from 0"),
        ({"crop": [0, 1]}, "crop must satisfy"),
        ({"mix": "mixup", "show": "flow"}, "labels are drawn over clips that are not mixed"),
    ],
)
def test_wrong_states(values, message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        State.parse(values)


@pytest.mark.parametrize(("suffix", "start"), [(".mp4", b"ftyp"), (".webp", b"WEBP"), (".png", b"PNG")])
def test_downloads(suffix, start, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    shown = show(State.parse(SMALL), {})
    file = encode(shown.frames, suffix)
    assert start in file[:16]
    assert not list(tmp_path.iterdir())
    if suffix == ".webp":
        assert np.array_equal(frames_of(file), shown.frames)


@pytest.fixture
def server():
    with Server("127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=120)
    connection.request(method, path, body, {"X-Pmg": "1"} | headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, json.loads(content) if answer.headers["Content-Type"] == "application/json" else content


def test_what_the_server_refuses(server):
    """Files that are no images, pages of other sites, other names of this machine, too much, and every path."""
    for body, headers, message in [
        (b"text", {"X-Name": '"notes.txt"'}, "cannot read notes.txt: cannot identify image file"),
        (b"text", {"X-Name": '"../../etc/passwd"'}, "cannot read passwd: "),
        (b"", {"X-Pmg": "0"}, "the request does not come from the page"),
        (b"", {"Host": "evil.example:80"}, "the request does not come from the page"),
        (b"", {"Content-Length": str(10**9)}, "the file has 954 MiB; 32 MiB are allowed"),
    ]:
        answer, said = ask(server, "POST", "/upload", body, **headers)
        assert (answer.status, message in said["error"]) == (400, True), said
    assert ask(server, "GET", "/", Host="evil.example:80")[0].status == 403
    for path in ("/page.py", "/../server.py", "/etc/passwd", "/page.js/.."):
        assert ask(server, "GET", path)[0].status == 404
    answer, said = ask(server, "POST", "/clip", json.dumps({"visitor": "a", "state": SMALL | {"image": "gone"}}))
    assert (answer.status, said["error"]) == (400, "this image is no longer here; choose it again")
    assert not server.uploads


def test_an_upload_is_a_picture(server, picture_file):
    _, kept = ask(server, "POST", "/upload", picture_file.read_bytes(), **{"X-Name": json.dumps("C:\\photos\\cat.png")})
    assert kept["name"] == "cat.png"
    assert torch.equal(server.uploads[kept["image"]].pixels, load_image(picture_file))
    answer, page = ask(server, "GET", "/")
    assert b"playground" in page
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    for _ in range(2):
        answer, file = ask(server, "POST", "/download.webp", json.dumps({"visitor": "a", "state": SMALL | {"image": kept["image"]}}))
        assert len(frames_of(file)) == 3


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine; Debian's package is chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium
        chromium.close()


def opened(browser, server, *, fragment="", **options):
    """A visitor's page, and what its console said."""
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(120_000)
    said = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(server.address + fragment)
    settle(page)
    return page, said


def settle(page):
    page.wait_for_selector("#busy.done", state="attached")


def clip(page):
    return frames_of(base64.b64decode(page.get_attribute("#clip", "src").partition(",")[2]))


def small(page):
    for name, value in SMALL.items():
        page.fill(f"#{name}", str(value))
        page.press(f"#{name}", "Tab")
        settle(page)


def test_a_visitor_from_photo_to_code(browser, server, picture_file, monkeypatch):
    page, said = opened(browser, server)
    small(page)
    before = clip(page)
    page.set_input_files("#file", picture_file)
    page.locator("#image option", has_text="picture.png").wait_for(state="attached")
    settle(page)
    photo = clip(page)
    assert (photo != before).any()
    page.select_option("#transform", "zoom")
    settle(page)
    page.focus("#ratio-high")
    page.keyboard.press("End")  # a slider by keyboard alone
    settle(page)
    moved = clip(page)
    assert (moved != photo).any()
    code = page.inner_text("#code")
    assert "Zoom(ratio=(1.025, " in code
    assert np.array_equal(run(code, picture_file.parent, monkeypatch), moved)
    link = page.url
    page.focus("#another")
    page.keyboard.press("Enter")
    settle(page)
    assert page.input_value("#id") == "1"
    again, said_again = opened(browser, server, fragment=link[link.index("#") :])
    assert np.array_equal(clip(again), moved)
    with page.expect_download() as download:
        page.click("[data-download=mp4]")
    assert download.value.suggested_filename == "zoom-1.mp4"
    assert said == said_again == []


def test_what_is_wrong_is_said_in_the_page(browser, server, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    page, _ = opened(browser, server)  # its console names the refused request
    page.set_input_files("#file", tmp_path / "notes.png")
    page.wait_for_selector("#message:not([hidden])")
    assert "cannot read notes.png" in page.inner_text("#message")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(browser, server, scheme):
    page, said = opened(browser, server, viewport={"width": 360, "height": 740}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    dark = sum(map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3])) < 384
    assert dark == (scheme == "dark")
    assert said == []


def test_two_visitors_at_once(browser, server):
    first, second = opened(browser, server)[0], opened(browser, server)[0]
    small(first)
    small(second)
    first.select_option("#transform", "fade")
    second.select_option("#transform", "zoom")
    settle(first)
    settle(second)
    assert "Fade" in first.inner_text("#code")
    assert "Zoom" in second.inner_text("#code")
    assert (clip(first) != clip(second)).any()
