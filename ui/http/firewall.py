"""The door: what a request has to be before gradio sees it, and what every answer carries.

Only what the pages and scripts need is open. gradio can do more (uploads, a proxy, an editor, sharing a page's state,
a monitoring page); all of that is closed here, by a list of what is open, so that the next version's ideas are too.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, cast

from fastapi.exceptions import RequestValidationError
from gradio.routes import App
from gradio.utils import get_upload_folder
from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.operations.metrics import REQUEST_S, REQUESTS
from ui.http.pace import Pace

LARGEST_BODY = 64 * 1024
API = "/gradio_api/"
OPEN_TO_READ = re.compile(
    r"/(assets|static|svelte)/.+|/(theme\.css|config/?|favicon\.ico|robots\.txt|manifest\.json)"
    r"|/healthz(/live)?|/metrics|/preview\.png"
    r"|/login/(huggingface|callback)|/logout"  # of a Space
    r"|/gradio_api/(app_id/?|info/?|openapi\.json|theme\.css|startup-events|queue/data|heartbeat/[\w-]{1,64})"
    r"|/gradio_api/call/(v2/)?\w{1,64}/[\w-]{1,64}",
    re.ASCII,
)
OPEN_TO_WRITE = re.compile(r"/gradio_api/(run/\w{1,64}|call/(v2/)?\w{1,64}|queue/join|cancel|reset/?)", re.ASCII)
STREAM = re.compile(r"/gradio_api/call/(?:v2/)?\w{1,64}/([\w-]{1,64})|/gradio_api/queue/data", re.ASCII)
FILE = "/gradio_api/file="
LONGEST_PATH, LONGEST_NAME = 1024, 255  # of an address and of a part of it: what file systems take

HEADERS = {
    # gradio compiles the handlers of its pages from text and writes its settings into the page: hence the two "unsafe".
    # A picture before the vote is a data: address, which the page Vote fetches.
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'self'",
            "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "media-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self' data: blob:",
            "worker-src 'self' blob:",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self' https://huggingface.co",
            "frame-ancestors 'self' https://huggingface.co https://*.hf.space",  # a Space is shown inside a frame
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # the address may hold a platform's id of a person
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "Cross-Origin-Resource-Policy": "same-origin",
}
UNLOGGED = ("/assets/", "/static/", "/svelte/", "/healthz", "/metrics")

logger = logging.getLogger(__name__)


class Door(App):
    """gradio's app with the door in front of everything, gradio's own middleware included."""

    endpoints: frozenset[str] = frozenset()
    """The names under /gradio_api/run/."""

    def __init__(self) -> None:
        super().__init__(
            docs_url=None,
            redoc_url=None,
            openapi_url=None,
            exception_handlers={
                RequestValidationError: lambda request, error: _no(400, "The request lacks something.")
            },
        )

    def build_middleware_stack(self) -> ASGIApp:
        """What Starlette calls once, before the first request."""
        return Guard(super().build_middleware_stack(), self)


class Guard:
    """Turns away what is not for this app, bounds bodies, sets headers, counts, and logs without telling who."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door
        self._pace = Pace()  # a page takes longer to write than an answer to a vote

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.perf_counter()
        route = self._route(scope["path"])

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                _set_headers(message)
                _note(route, message["status"], time.perf_counter() - started_s)
            await send(message)

        refused, body = await self._look_at(scope, receive)
        if refused is not None:
            await refused(scope, receive, answer)
        else:
            await self._app(scope, receive if body is None else _again(body, receive), answer)

    async def _look_at(self, scope: Scope, receive: Receive) -> tuple[JSONResponse | None, bytes | None]:
        """(what to answer instead, the body if it was read)."""
        path, method = scope["path"], scope["method"]
        if _is_too_long(path) or self._has_no_listener(scope):
            return _no(404, "There is nothing at this address."), None
        if method in ("GET", "HEAD") and self._is_page(path):
            busy = _no(429, "More people come than can be let in; try again in a moment.")
            return None if await self._pace.turn() else busy, None
        if method in ("GET", "HEAD") and (OPEN_TO_READ.fullmatch(path) or _is_made_here(path)):
            return None, None
        if not OPEN_TO_WRITE.fullmatch(path):
            return _no(404, "There is nothing at this address."), None
        if method != "POST":
            return _no(405, f"{method} is not possible here; send a POST."), None
        if Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _no(415, "Send JSON, with the content type application/json."), None
        body = await _read(receive)
        if body is None:
            return _no(413, f"The request is too long; {LARGEST_BODY:,} bytes are the most."), None
        try:
            asked = _parse(body)
        except (ValueError, RecursionError):
            return _no(400, "The request is no JSON, or holds characters or numbers that are none."), None
        wrong = self._mistake(path.removeprefix(API), asked)
        return (_no(400, wrong), None) if wrong else (None, body)

    def _has_no_listener(self, scope: Scope) -> bool:
        """Whether news are asked for of something that nobody started; gradio would begin to answer, and break off."""
        stream = STREAM.fullmatch(scope["path"])
        if stream is None or scope["method"] not in ("GET", "HEAD"):
            return False
        queue, event = self._door.get_blocks()._queue, stream[1]
        if event is None:
            event = QueryParams(scope["query_string"]).get("session_hash")
        started = (event in ids for ids in queue.pending_event_ids_session.values())
        return event not in queue.pending_messages_per_session and not any(started)

    def _is_page(self, path: str) -> bool:
        return path.strip("/") in {page[0] for page in self._door.get_blocks().pages} and "//" not in path

    def _route(self, path: str) -> str:
        """The address without what is different every time; one word for all that does not exist."""
        if self._is_page(path):
            return path
        for prefix in ("/assets/", "/static/", "/svelte/", FILE):
            if path.startswith(prefix):
                return prefix
        for address in ("run/", "heartbeat/", "call/"):
            if path.startswith(API + address):
                name = path.removeprefix(API + address)
                return path if name in self._door.endpoints and address == "run/" else f"{API}{address}…"
        return path if OPEN_TO_READ.fullmatch(path) or OPEN_TO_WRITE.fullmatch(path) else "elsewhere"

    def _mistake(self, address: str, asked: Any) -> str:
        """What gradio would stumble over, in a sentence; empty for what it can take."""
        if not isinstance(asked, dict):
            return "The request is no JSON object."
        if address.startswith("call/"):
            return _call_mistake(self._door, address.removeprefix("call/"), asked)
        if address == "queue/join":
            return _join_mistake(self._door, asked)
        return ""


def _call_mistake(door: Door, name: str, asked: dict[str, Any]) -> str:
    """Of a call by name: gradio wants every value, and would write those that it got into the log."""
    by_name, name = name.startswith("v2/"), name.removeprefix("v2/")
    named = {fn.api_name: fn for fn in door.get_blocks().fns.values() if fn.api_visibility == "public"}
    if name not in named:
        return f"There is no endpoint {name!r}; /gradio_api/info names those that there are."
    if by_name:
        known = inspect.signature(cast(Any, named[name].fn)).parameters.values()
        needed = {parameter.name for parameter in known if parameter.default is parameter.empty}
        wrong = (set(asked) - {parameter.name for parameter in known}) | (needed - set(asked))
        return f"Of the names that {name} takes, some are missing or others were given." if wrong else ""
    session, data = asked.get("session_hash"), asked.get("data")
    if session is not None and not _is_session(session):
        return "The session is none; leave it out."
    if not isinstance(data, list) or len(data) != len(named[name].inputs):
        return (
            f"The data of {name} have to be a list of {len(named[name].inputs)} values, as /gradio_api/info has them."
        )
    return ""


def _join_mistake(door: Door, asked: dict[str, Any]) -> str:
    number, session, data = asked.get("fn_index"), asked.get("session_hash"), asked.get("data")
    fns = door.get_blocks().fns
    if isinstance(number, bool) or not isinstance(number, int) or number not in fns:
        return "The number of the function is none of this app's; load the page again."
    if not _is_session(session):
        return "The session is none; load the page again."
    if not isinstance(data, list) or len(data) != len(fns[number].inputs):
        return f"The data have to be a list of {len(fns[number].inputs)} values; load the page again."
    return ""


def _is_session(session: object) -> bool:
    return isinstance(session, str) and re.fullmatch(r"[\w-]{1,64}", session, re.ASCII) is not None


def _is_too_long(path: str) -> bool:
    parts = path.encode("utf-8", "surrogatepass").split(b"/")
    return len(path) > LONGEST_PATH or max(map(len, parts)) > LONGEST_NAME


def _is_made_here(path: str) -> bool:
    """Whether a file is one that this app made for its pages; gradio then looks whether this visitor may have it."""
    if not path.startswith(FILE) or "\0" in path:
        return False
    file = Path(path.removeprefix(FILE))
    return file.is_absolute() and file.resolve().is_relative_to(Path(get_upload_folder()).resolve())


async def _read(receive: Receive) -> bytes | None:
    """The whole body, None as soon as it is longer than what is let in."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return bytes(body)
        body += message.get("body", b"")
        if len(body) > LARGEST_BODY:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _parse(body: bytes) -> Any:
    """The JSON in `body`; ValueError for any other, and for NaN, NUL and halves of characters, which no database and
    no answer could hold."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    asked = json.loads(body, parse_constant=refuse)
    text = json.dumps(asked, ensure_ascii=False)
    text.encode()
    if "\\u0000" in text:
        raise ValueError("NUL")
    return asked


def _again(body: bytes, receive: Receive) -> Receive:
    """The body, for whoever comes after the one that has read it."""
    given: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def from_the_start() -> Message:
        return given.pop() if given else await receive()

    return from_the_start


def _set_headers(message: MutableMapping[str, Any]) -> None:
    """Ours in, and out with what would let other sites read: the app has no business with them."""
    headers = MutableHeaders(raw=message.setdefault("headers", []))
    for name in [name for name in headers if name.startswith("access-control-")]:
        del headers[name]
    for name, value in HEADERS.items():
        headers[name] = value


def _no(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"error": sentence}, status)


def _note(route: str, status: int, seconds: float) -> None:
    REQUESTS.labels(route, str(status)).inc()
    REQUEST_S.labels(route).observe(seconds)
    if not route.startswith(UNLOGGED):
        logger.info("request", extra={"route": route, "status": status, "ms": round(1000 * seconds, 1)})
