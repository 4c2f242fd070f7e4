"""The playground: its states and its code without a browser, and the page in Chromium where there is one."""

import base64
import http.client
import io
import json
import re
import shutil
import threading
from dataclasses import fields
from urllib.parse import quote

import numpy as np
import pytest
import torch
from pictures import save_cutout
from PIL import Image, ImageSequence

from pseudomotion import play
from pseudomotion.images import builtin_picture, load_image
from pseudomotion.objects import PRESETS
from pseudomotion.play import server as servers
from pseudomotion.play import state as states
from pseudomotion.play.server import Server
from pseudomotion.play.state import MIXES, OBJECT_SLIDERS, Picture, State, controls, encode, show
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
        {"transform": "affine", "exposure": 0.5},
        {"mix": "mixup", "partner": "upload"},
        {"transform": "cutmix", "image": "upload", "partner": "dead_leaves", "id": 3},
        {"transform": "shake", "ranges": {"fast": [0.03, 0.05]}},
        {"objects": "mixed", "image": "upload", "partner": "picture"},
        {"objects": "yu2024", "object_ranges": {"count": [3, 4], "bend": [0.1, 0.3], "feather": [3, 5]}},
        {"objects": "cutouts", "partner": "cutout"},
        {"objects": "cutouts", "partner": "cutout", "mix": "videomix", "image": "upload"},
    ],
    ids=str,
)
def test_the_code_makes_the_clip_that_is_shown(values, picture_file, monkeypatch):
    save_cutout(picture_file.parent / "cutout.png", 7)
    files = {"upload": picture_file, "cutout": picture_file.parent / "cutout.png"}
    shown = show(State.parse(SMALL | values), {key: Picture(path.read_bytes(), path.name) for key, path in files.items()})
    assert np.array_equal(run(shown.code, picture_file.parent, monkeypatch), shown.frames)
    assert "3 frames of 64x64" in shown.plan


def test_large_pictures_are_reduced_and_the_code_says_so(picture_file, monkeypatch):
    monkeypatch.setattr(states, "LARGEST_SIDE", 200)
    uploads = {"upload": Picture(picture_file.read_bytes(), picture_file.name)}
    shown = show(State.parse(SMALL | {"image": "upload"}), uploads)
    assert "load_image('picture.png', (150, 200))" in shown.code
    assert np.array_equal(run(shown.code, picture_file.parent, monkeypatch), shown.frames)


@pytest.mark.parametrize("values", [{"mix": "mixup"}, {"transform": "cutmix"}, {"objects": "smile2025"}], ids=str)
def test_the_second_picture_shows(values):
    night, noise = (show(State.parse(SMALL | values | {"partner": name}), {}).frames for name in ("night", "noise"))
    assert (night != noise).any()


def test_cut_outs_are_those_of_the_second_picture(picture_file):
    save_cutout(picture_file.parent / "cutout.png", 7)
    files = {"upload": picture_file, "cutout": picture_file.parent / "cutout.png"}
    uploads = {key: Picture(path.read_bytes(), path.name) for key, path in files.items()}
    for partner, message in (("night", "choose one with transparent parts"), ("upload", "picture.png has none")):
        with pytest.raises(ValueError, match=message):
            show(State.parse(SMALL | {"objects": "cutouts", "partner": partner}), uploads)
    drawn = show(State.parse(SMALL | {"objects": "cutouts", "partner": "cutout", "show": "instances"}), uploads).frames
    assert (np.ptp(drawn, axis=-1) > 40).mean() > 0.05


def test_every_range_has_a_slider_with_its_default_on_it_and_its_unit_beside_it():
    offered = controls()
    assert offered["transforms"].keys() == ALL_TRANSFORMS.keys()
    for name, cls in ALL_TRANSFORMS.items():
        ranges = {field: value for field, value in vars(cls()).items() if isinstance(value, tuple)}
        assert {each["name"]: each["default"] for each in offered["transforms"][name]["ranges"]} == ranges
        allowed = {each.name: each.metadata["allowed"] for each in fields(cls) if each.name in ranges}
        for slider in offered["transforms"][name]["ranges"]:  # it goes beyond the default, unless there is no more
            low, high = allowed[slider["name"]]
            assert slider["low"] < slider["default"][0] or slider["low"] == low, slider
            assert slider["high"] > slider["default"][1] or slider["high"] == high, slider
    assert [each["name"] for each in offered["objects"]["mixed"]] == list(OBJECT_SLIDERS)
    assert offered["objects"].keys() == {"none", *PRESETS}
    groups = [*(shown["ranges"] for shown in offered["transforms"].values()), *offered["objects"].values()]
    for slider in [each for group in groups for each in group]:
        assert slider["low"] <= slider["default"][0] <= slider["default"][1] <= slider["high"], slider
        assert slider["low"] < slider["high"], slider
        assert len(slider["about"]) > 6, slider
    for preset in PRESETS:  # what a slider can reach is allowed
        ends = {name: list(pair) for name, pair in OBJECT_SLIDERS.items()}
        State.parse({"objects": preset, "object_ranges": ends})


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
        ({"exposure": 1.5}, "exposure must"),
        ({"transform": "zoom", "ranges": {"ratio": 1.1}}, "ranges must be pairs of numbers by name"),
        ({"objects": "mixed", "object_ranges": {"bend": [0, 2]}}, "Objects.bend must be"),
        ({"objects": "mixed", "object_ranges": {"count": [1, 10**9]}}, "Objects.count must be"),
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


def test_what_the_server_refuses(server, picture_file, monkeypatch):
    """Files that are no images, pages of other sites, other names of this machine, too much, and every path."""
    monkeypatch.setattr(states, "MOST_PIXELS", 300 * 400 - 1)
    for body, headers, message in [
        (b"text", {"X-Name": '"notes.txt"'}, "cannot read notes.txt: cannot identify image file"),
        (b"text", {"X-Name": '"../../etc/passwd"'}, "cannot read passwd: "),
        (b"", {"X-Pmg": "0"}, "the request does not come from the page"),
        (b"", {"Host": "evil.example:80"}, "the request does not come from the page"),
        (b"", {"Content-Length": str(10**9)}, "the file has 954 MiB; 32 MiB are allowed"),
        (picture_file.read_bytes(), {}, "cannot read image: 400 x 300 pixels are more than"),
    ]:
        answer, said = ask(server, "POST", "/upload", body, **headers)
        assert (answer.status, message in said["error"]) == (400, True), said
    assert ask(server, "GET", "/", Host="evil.example:80")[0].status == 403
    for path in ("/page.py", "/../server.py", "/etc/passwd", "/page.js/.."):
        assert ask(server, "GET", path)[0].status == 404
    for state in ({"image": "gone"}, {"image": str(picture_file)}, {"mix": "mixup", "partner": str(picture_file)}):
        answer, said = ask(server, "POST", "/clip", json.dumps({"visitor": "a", "state": SMALL | state}))
        assert (answer.status, said["error"]) == (400, "this image is no longer here; choose it again")
    assert not server.uploads


def test_only_this_machine_is_let_in_unless_told(server, monkeypatch):
    asked = {}
    monkeypatch.setattr(servers, "serve", lambda image, **options: asked.update(options))
    assert play.main(["--no-browser"]) == 0
    assert asked["host"] == "127.0.0.1"
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_the_latest_uploads_are_kept_and_the_image_it_was_started_with(server, picture_file):
    server.uploads["start"] = Picture(picture_file.read_bytes(), "start.png")
    keys = []
    for level in range(servers.MOST_UPLOADS + 2):
        file = io.BytesIO()
        Image.new("L", (4, 4), level).save(file, "PNG")
        keys.append(server.keep(file.getvalue(), "gray.png"))
    assert list(server.uploads) == ["start", *keys[3:]]


def test_renders_of_a_visitor_follow_each_other(server, monkeypatch):
    """While one runs, those of the same visitor wait, and those of another do not."""
    shown = []
    monkeypatch.setattr(states, "show", lambda state, uploads: shown.append(state.id) or show(state, uploads))

    def clip(visitor, number):
        return ask(server, "POST", "/clip", json.dumps({"visitor": visitor, "state": SMALL | {"id": number}}))[0].status

    with server.lock("a"):  # as a render of a does
        waiting = threading.Thread(target=clip, args=("a", 1))
        waiting.start()
        assert clip("b", 2) == clip("b", 3) == 200
        assert shown == [2, 3]
    waiting.join()
    assert shown == [2, 3, 1]


def test_an_upload_is_a_picture(server, picture_file):
    _, kept = ask(server, "POST", "/upload", picture_file.read_bytes(), **{"X-Name": json.dumps("C:\\photos\\cat.png")})
    assert kept["name"] == "cat.png"
    assert torch.equal(server.uploads[kept["image"]].pixels(), load_image(picture_file))
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


def opened(browser, server, *, fragment=None, permissions=(), **options):
    """A visitor's page, at first of small clips, and what its console said."""
    context = browser.new_context(permissions=permissions, **options)
    page = context.new_page()
    page.set_default_timeout(60_000)
    said = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(server.address + (fragment or "#" + quote(json.dumps(SMALL))))
    settle(page)
    return page, said


def settle(page):
    page.wait_for_selector("#busy.done", state="attached")


def clip(page):
    return frames_of(base64.b64decode(page.get_attribute("#clip", "src").partition(",")[2]))


def test_a_visitor_from_photo_to_code(browser, server, picture_file, monkeypatch):
    page, said = opened(browser, server)
    before = clip(page)
    page.set_input_files("#file", picture_file)
    page.locator("#image option", has_text="picture.png").wait_for(state="attached")
    settle(page)
    photo = clip(page)
    assert (photo != before).any()
    page.select_option("#transform", "zoom")
    settle(page)
    page.focus("#ratio-high")
    page.keyboard.press("End")
    settle(page)
    moved = clip(page)
    assert (moved != photo).any()
    code = page.inner_text("#code")
    assert "Zoom(ratio=(1.025, " in code
    assert np.array_equal(run(code, picture_file.parent, monkeypatch), moved)
    link = page.url
    page.click("#another")
    settle(page)
    assert page.input_value("#id") == "1"
    again, said_again = opened(browser, server, fragment=link[link.index("#") :])
    assert np.array_equal(clip(again), moved)
    with page.expect_download() as download:
        page.click("[data-download=mp4]")
    assert download.value.suggested_filename == "zoom-1.mp4"
    assert said == said_again == []


def drop(page, path, selector):
    """Drop a file on a part of the page, by the events that a hand's mouse makes."""
    page.locator(selector).scroll_into_view_if_needed()
    box = page.locator(selector).bounding_box()
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    devtools = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        devtools.send("Input.dispatchDragEvent", {"type": kind, "data": data, **place})


def test_dropped_files_are_the_first_and_the_second_picture(browser, server, picture_file, tmp_path, monkeypatch):
    Image.fromarray(builtin_picture(120, 90).permute(1, 2, 0).numpy()).save(tmp_path / "tall.png")
    page, said = opened(browser, server)
    page.select_option("#mix", "mixup")
    drop(page, picture_file, "#clip")
    page.locator("#image option:checked", has_text="picture.png").wait_for(state="attached")
    settle(page)
    before = clip(page)
    drop(page, tmp_path / "tall.png", "#second")
    page.locator("#partner option:checked", has_text="tall.png").wait_for(state="attached")
    settle(page)
    mixed = clip(page)
    assert (mixed != before).any()
    assert page.locator("#image option:checked").inner_text() == "picture.png"
    assert np.array_equal(run(page.inner_text("#code"), tmp_path, monkeypatch), mixed)
    assert said == []


def test_code_and_link_are_copied(browser, server):
    page, said = opened(browser, server, permissions=["clipboard-read", "clipboard-write"])
    for button, text in (("#copy", page.inner_text("#code")), ("#link", page.url)):
        page.click(button)
        page.locator(button, has_text="Copied").wait_for()
        assert page.evaluate("navigator.clipboard.readText()").strip() == text.strip()
    assert said == []


def test_everything_can_be_done_with_the_keyboard(browser, server):
    """Tab reaches every control, in the order of the page, and shows where it is; keys change the clip."""
    page, said = opened(browser, server, fragment="#" + quote(json.dumps(SMALL | {"transform": "shake", "objects": "mixed"})))
    expected = page.evaluate(
        "[...document.querySelectorAll('main select, main input, main button, main pre')].map((e) => e.id || e.dataset.download)"
    )
    reached = []
    for _ in expected:
        page.keyboard.press("Tab")
        name, outlined = page.evaluate(
            "(([e, style]) => [e.id || e.dataset.download, style.outlineStyle])"
            "([document.activeElement, getComputedStyle(document.activeElement)])"
        )
        assert outlined != "none", name
        reached.append(name)
    assert reached == expected
    assert {"slow-low", "fast-high", "object-bend-high", "object-feather-low", "partner-file"} <= set(reached)
    for name, key in (("fast-high", "ArrowRight"), ("object-bend-high", "End"), ("transform", "ArrowUp"), ("another", "Enter")):
        before = clip(page)
        page.focus(f"#{name}")
        page.keyboard.press(key)
        settle(page)
        assert (clip(page) != before).any(), name
    assert said == []


def test_what_is_wrong_is_said_in_the_page(browser, server, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    page, _ = opened(browser, server)  # its console names the refused request
    page.set_input_files("#file", tmp_path / "notes.png")
    page.wait_for_selector("#message:not([hidden])")
    assert "cannot read notes.png" in page.inner_text("#message")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(browser, server, scheme):
    state = SMALL | {"objects": "mixed", "eight": True, "resampling": "both"}
    options = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme}
    page, said = opened(browser, server, fragment="#" + quote(json.dumps(state)), **options)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("#objects").scroll_into_view_if_needed()
    assert 0 <= page.locator("#clip").bounding_box()["y"] < 30  # it stays in view, at the top
    dark = sum(map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3])) < 384
    assert dark == (scheme == "dark")
    assert said == []


def test_two_visitors_at_once(browser, server):
    first, second = opened(browser, server)[0], opened(browser, server)[0]
    first.select_option("#transform", "fade")
    second.select_option("#transform", "zoom")
    settle(first)
    settle(second)
    assert "Fade" in first.inner_text("#code")
    assert "Zoom" in second.inner_text("#code")
    assert (clip(first) != clip(second)).any()
