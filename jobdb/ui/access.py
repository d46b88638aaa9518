"""Access control: only requests from this user's processes, to a loopback name, with the key that ``jobdb ui`` printed.

Called by ``server``, which puts it in front of the whole site. The database files are private to their owner, but a
port on the loopback interface is open to every user of the machine and, through a name that an attacker's DNS points
there, to every web page. So the first request carries the key in its URL, receives it as a cookie, and is redirected to
a URL without it.

A browser sends a host's cookies to every port of that host (https://www.rfc-editor.org/rfc/rfc6265#section-8.5):
anyone who serves another port of this machine, and gets the browser to visit it, learns the key. So the key alone is
not enough. The other end of a connection must be a process of this user, if the system can identify its owner; and a
request initiated by a page of another origin, another port included, is refused if the browser reports the origin
(https://www.w3.org/TR/fetch-metadata/).
"""

from __future__ import annotations

import hmac
import html
import os
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode

from .peer import peer_uid

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class AccessControl:
    """ASGI middleware in front of the whole site.

    Args:
        app: the site.
        key: the secret of this run.
        port: the site's port, part of the host names that it answers to and of the cookie's name.
    """

    def __init__(self, app: Application, *, key: str, port: int) -> None:
        self._app = app
        self._key = key.encode()
        self._cookie = f"jobdb_ui_{port}"
        self._allowed_hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if headers.get(b"host", "") not in self._allowed_hosts:
            await _respond(send, 421, "this site answers to 127.0.0.1 and localhost only\n")
            return
        if scope["method"] not in ("GET", "HEAD"):
            await _respond(send, 405, "this site is read-only\n")
            return
        if not _is_own_user(scope):
            await _respond(send, 403, "this site is for the user who started it only\n")
            return
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "key"]
        if given and self._key_matches(given[-1]):
            rest = urlencode([(name, value) for name, value in query if name != "key"])
            path = "/" + scope["path"].lstrip("/\\")  # a browser treats two of either as the beginning of a host name
            cookie = f"{self._cookie}={self._key.decode()}; Path=/; HttpOnly; SameSite=Strict"
            path += "?" + rest if rest else ""
            if self._is_same_origin(headers, followed=False):
                await _respond(send, 303, "", location=path, set_cookie=cookie)
            else:
                # As with --open: after a redirect the browser would still regard the local file as the initiator and
                # send no cookie. This page has our own origin.
                page = f'<meta http-equiv="refresh" content="0; url={html.escape(path)}">'
                await _respond(send, 200, page, set_cookie=cookie, content_type="text/html; charset=utf-8")
            return
        if not self._is_same_origin(headers):
            await _respond(send, 403, "another site requested this page; open the address that 'jobdb ui' printed\n")
            return
        if not self._key_matches(self._cookie_key(headers.get(b"cookie", ""))):
            await _respond(send, 403, "open the address that 'jobdb ui' printed: it contains the key\n")
            return
        await self._app(scope, receive, send)

    def _is_same_origin(self, headers: dict[bytes, str], *, followed: bool = True) -> bool:
        """Return whether the request comes from a page of this site, a person, or a client that is not a browser.

        Args:
            headers: the request's headers.
            followed: True to accept a link from another site too: it opens a page that the other site cannot read.
        """
        origin = headers.get(b"origin")
        ours = origin is None or origin in {f"http://{name}" for name in self._allowed_hosts}
        document = headers.get(b"sec-fetch-mode") == "navigate" and headers.get(b"sec-fetch-dest") == "document"
        return ours and ((followed and document) or headers.get(b"sec-fetch-site", "none") in ("none", "same-origin"))

    def _cookie_key(self, header: str) -> str:
        try:
            found = SimpleCookie(header).get(self._cookie)
        except CookieError:
            return ""
        return found.value if found else ""

    def _key_matches(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._key)


def _is_own_user(scope: Scope) -> bool:
    """Return whether the other end belongs to this user or to root, or its owner cannot be determined."""
    client, server = scope.get("client"), scope.get("server")
    if not client or not server:
        return True
    return peer_uid(tuple(client), tuple(server)) in (None, 0, os.getuid())


async def _respond(send: Send, status: int, text: str, **headers: str) -> None:
    headers = {"content_type": "text/plain; charset=utf-8", "cache_control": "no-store", **headers}
    pairs = [(name.replace("_", "-").encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": text.encode()})
