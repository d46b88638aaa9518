"""Access control: requests of this user's processes, to a loopback name, with the key that ``jobdb ui`` printed.

Called by ``server``, which puts it before the whole site. The database's files are for their owner alone, but a port on
the loopback interface is open to every user of the machine and, by a name that an attacker's DNS points there, to every
web page. So the first request brings the key in the address, gets it as a cookie, and is redirected to an address
without it.

A browser sends a host's cookies to every port of that host (https://www.rfc-editor.org/rfc/rfc6265#section-8.5):
whoever serves another port of this machine, and gets the browser to visit it, learns the key. So the key alone does not
suffice. The other end of a connection must be a process of this user, where the system tells whose it is; and a request
that a page of another origin has caused, another port included, is refused, if the browser says so
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
        port: the site's port, for the host names that it answers to and for the cookie's name.
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
            path = "/" + scope["path"].lstrip("/\\")  # a browser takes two of either for the beginning of a host
            cookie = f"{self._cookie}={self._key.decode()}; Path=/; HttpOnly; SameSite=Strict"
            path += "?" + rest if rest else ""
            if self._is_same_origin(headers, followed=False):
                await _respond(send, 303, "", location=path, set_cookie=cookie)
            else:
                # As with --open: after a redirect the browser would still regard the file that led here as the cause,
                # and send no cookie. This page is of our own origin.
                page = f'<meta http-equiv="refresh" content="0; url={html.escape(path)}">'
                await _respond(send, 200, page, set_cookie=cookie, content_type="text/html; charset=utf-8")
            return
        if not self._is_same_origin(headers):
            await _respond(
                send, 403, "another site asked for this page; open the address that 'jobdb ui' has printed\n"
            )
            return
        if not self._key_matches(self._cookie_key(headers.get(b"cookie", ""))):
            await _respond(send, 403, "open the address that 'jobdb ui' has printed: it holds the key\n")
            return
        await self._app(scope, receive, send)

    def _is_same_origin(self, headers: dict[bytes, str], *, followed: bool = True) -> bool:
        """Return whether the request was caused by a page of this site, a person, or a client other than a browser.

        Args:
            headers: the request's headers.
            followed: also accept a link from another site: it opens a page that the other site cannot read.
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
    """Return whether the other end belongs to this user or to root, or the system does not tell."""
    client, server = scope.get("client"), scope.get("server")
    if not client or not server:
        return True
    return peer_uid(tuple(client), tuple(server)) in (None, 0, os.getuid())


async def _respond(send: Send, status: int, text: str, **headers: str) -> None:
    headers = {"content_type": "text/plain; charset=utf-8", "cache_control": "no-store", **headers}
    pairs = [(name.replace("_", "-").encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": text.encode()})
