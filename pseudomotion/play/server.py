"""The server of ``pmg-play``: one page, its state in and its clips out, everything in memory. It takes no path from the browser."""

import base64
import contextlib
import hashlib
import http.server
import json
import signal
import sys
import threading
import webbrowser
from collections import OrderedDict
from pathlib import Path, PurePath
from typing import Any

import torch

from pseudomotion.play import state as states

__all__ = ["Server", "serve"]

MOST_BYTES = 32 * 2**20  # of an upload
MOST_UPLOADS = 16  # kept, of all visitors
TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".webp": "image/webp",
    ".mp4": "video/mp4",
    ".png": "image/png",
}
LOCAL = ("127.0.0.1", "localhost", "[::1]")
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Server(http.server.ThreadingHTTPServer):
    """One thread per request; the renders of a visitor follow each other."""

    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        self.uploads: OrderedDict[str, states.Picture] = OrderedDict()
        self.start_image = "picture"
        self._locks: OrderedDict[str, threading.Lock] = OrderedDict()
        self._guard = threading.Lock()
        self.host = host
        super().__init__((host, port), _Handler)

    @property
    def address(self) -> str:
        """Of the page."""
        return f"http://{self.host}:{self.server_address[1]}/"

    def keep(self, content: bytes, name: str) -> str:
        """Decode an upload and keep it; returns its key.

        Raises:
            ValueError: if it is not an image that can be decoded.

        """
        picture = states.Picture(content, name)
        key = hashlib.sha256(content).hexdigest()[:24]
        with self._guard:
            self.uploads[key] = picture
            self.uploads.move_to_end(key)
            while len(self.uploads) > MOST_UPLOADS:
                del self.uploads[next(old for old in self.uploads if old != "start")]
        return key

    def lock(self, visitor: str) -> threading.Lock:
        """What a visitor's renders hold, one at a time."""
        with self._guard:
            lock = self._locks.setdefault(visitor, threading.Lock())
            self._locks.move_to_end(visitor)
            while len(self._locks) > 1000:
                self._locks.popitem(last=False)
            return lock

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        """The page and its parts."""
        name = {"/": "page.html", "/page.js": "page.js", "/page.css": "page.css"}.get(self.path)
        if not self._is_for_us():
            self._say(403, {"error": "this address is not the server's"})
        elif self.path == "/controls":
            self._say(200, states.controls() | {"start": self.server.start_image})
        elif name is None:
            self._say(404, {"error": "there is nothing here"})
        else:
            self._send(200, TYPES[PurePath(name).suffix], Path(__file__).with_name(name).read_bytes())

    def do_POST(self) -> None:
        """An upload, or a state to be shown or downloaded."""
        try:
            content = self._content()
            if self.path == "/upload":
                name = PurePath(json.loads(self.headers.get("X-Name", '"image"')).replace("\\", "/")).name[:100] or "image"
                self._say(200, {"image": self.server.keep(content, name), "name": name})
                return
            request = json.loads(content)
            state = states.State.parse(request["state"])
            with self.server.lock(str(request["visitor"])[:64]):
                shown = states.show(state, self.server.uploads)
                if self.path == "/clip":
                    picture = base64.b64encode(states.encode(shown.frames, ".webp")).decode()
                    self._say(200, {"clip": f"data:image/webp;base64,{picture}", "plan": shown.plan, "code": shown.code})
                elif self.path in ("/download.webp", "/download.mp4", "/download.png"):
                    suffix = PurePath(self.path).suffix
                    self._send(200, TYPES[suffix], states.encode(shown.frames, suffix))
                else:
                    self._say(404, {"error": "there is nothing here"})
        except (ValueError, TypeError, KeyError, AttributeError, MemoryError) as error:
            self._say(400, {"error": str(error) or type(error).__name__})

    def _content(self) -> bytes:
        """What was sent, if it comes from our own page and is not too large."""
        if not self._is_for_us() or self.headers.get("X-Pmg") != "1":  # a header that other sites' pages cannot send
            self.close_connection = True
            raise ValueError("the request does not come from the page")
        length = int(self.headers.get("Content-Length", ""))
        if not 0 <= length <= MOST_BYTES:
            self.close_connection = True  # what is sent is not read
            raise ValueError(f"the file has {length / 2**20:.0f} MiB; {MOST_BYTES >> 20} MiB are allowed")
        return self.rfile.read(length)

    def _is_for_us(self) -> bool:
        """Whether the browser calls us by a name of this machine: another name may lead here from a hostile page (DNS rebinding)."""
        name = self.headers.get("Host", "").rpartition(":")[0]
        return self.server.host not in LOCAL or name in LOCAL

    def _say(self, status: int, answer: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(answer).encode())

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in (HEADERS | {"Content-Type": kind, "Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """The terminal stays quiet."""


def serve(image: str | None, *, host: str, port: int, browser: bool) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        OSError: if the image cannot be read, or the port is taken.
        ValueError: if the image cannot be decoded.

    """
    torch.set_num_threads(1)  # labels are many small operations, whose threads would mostly wait; visitors' renders run side by side
    picture = states.Picture(Path(image).read_bytes(), image) if image is not None else None
    try:
        server = Server(host, port)
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port, 0 for any") from error
    with server:
        if picture is not None:
            server.uploads["start"] = picture
            server.start_image = "start"
        print(f"pmg-play: {server.address}   (Ctrl-C ends it)", flush=True)  # noqa: T201
        threading.Thread(target=_warm_up, daemon=True).start()
        if browser:
            webbrowser.open(server.address)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C while the socket closes


def _warm_up() -> None:
    """Compile the renderer while the page loads."""
    states.show(states.State(size=64, frames=2), {})
