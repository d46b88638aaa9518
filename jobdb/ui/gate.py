"""Who gets in: requests that came to a loopback name with the key that ``jobdb ui`` printed.

The files are for their owner alone, and a port on the loopback interface is open to every user of the machine, and by a
name that an attacker's DNS points there to every web page. So the first request brings the key in the address, gets it
as a cookie, and is sent on to an address without it.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Gate:
    """ASGI middleware before the whole site.

    Args:
        site: what lies behind.
        key: the secret of this run.
        port: where the site is, for the names that it answers to and for the cookie's.
    """

    def __init__(self, site: Application, *, key: str, port: int) -> None:
        self._site = site
        self._key = key.encode()
        self._cookie = f"jobdb_ui_{port}"
        self._names = {f"127.0.0.1:{port}", f"localhost:{port}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._site(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if headers.get(b"host", "") not in self._names:
            await _answer(send, 421, "this site answers to 127.0.0.1 and localhost only\n")
            return
        if scope["method"] not in ("GET", "HEAD"):
            await _answer(send, 405, "this site is for reading only\n")
            return
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "key"]
        if given and self._fits(given[-1]):
            rest = urlencode([(name, value) for name, value in query if name != "key"])
            path = "/" + scope["path"].lstrip("/")
            cookie = f"{self._cookie}={self._key.decode()}; Path=/; HttpOnly; SameSite=Strict"
            await _answer(send, 303, "", location=path + ("?" + rest if rest else ""), set_cookie=cookie)
            return
        if not self._fits(self._sent(headers.get(b"cookie", ""))):
            await _answer(send, 403, "open the address that 'jobdb ui' has printed: it holds the key\n")
            return
        await self._site(scope, receive, send)

    def _sent(self, header: str) -> str:
        try:
            found = SimpleCookie(header).get(self._cookie)
        except CookieError:
            return ""
        return found.value if found else ""

    def _fits(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._key)


async def _answer(send: Send, status: int, text: str, **headers: str) -> None:
    pairs = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    pairs += [(name.replace("_", "-").encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": text.encode()})
