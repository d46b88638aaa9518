"""The command for the web browser: ui."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from . import output
from .context import resolve_url
from .parameters import Json

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from jobdb.ui import SiteAddress


def ui(
    ctx: typer.Context,
    port: Annotated[
        int, typer.Option("--port", metavar="N", help="The port on 127.0.0.1; 0 takes a free one.", min=0, max=65535)
    ] = 8011,
    open_: Annotated[bool, typer.Option("--open", help="Open it in this machine's browser.")] = False,
    json: Json = False,
) -> None:
    """Browse the registry in a web browser.

    Jobs with facets by status and agent, a page for each job with its timeline, running jobs, refusals,
    durations. For reading only, reachable from this machine only, and only with the address that is printed:
    it holds a key. Ctrl-C ends it. From elsewhere: ssh -L 8011:127.0.0.1:8011 HOST. Needs jobdb[ui].

    \b
    Example:
      jobdb ui --open
    """
    import contextlib

    from jobdb.ui import serve

    with contextlib.ExitStack() as stack, contextlib.suppress(KeyboardInterrupt):

        def ready(site: SiteAddress) -> None:
            if json:
                output.json_line({"address": site.url, "port": site.port})
            else:
                output.line(site.url)
            output.flush()
            output.hint("Ctrl-C ends it")
            if open_:
                stack.enter_context(_open_browser(site.url))

        serve(resolve_url(ctx), port=port, ready=ready)


def _open_browser(address: str) -> AbstractContextManager[None]:
    """Opens the browser on a private file that leads to the address: a browser's arguments are for all to see."""
    import contextlib
    import html
    import os
    import tempfile
    import webbrowser
    from collections.abc import Iterator
    from pathlib import Path

    from jobdb.system.subprocess_env import absolute_path_entries, without_secrets

    @contextlib.contextmanager
    def opened() -> Iterator[None]:
        with tempfile.TemporaryDirectory(prefix="jobdb-ui-") as folder:
            page = Path(folder) / "jobdb.html"
            page.write_text(f'<meta http-equiv="refresh" content="0; url={html.escape(address)}">', "utf-8")
            # The browser gets this process's environment, and is found by its PATH.
            kept = without_secrets(os.environ)
            for name in os.environ.keys() - kept.keys():
                del os.environ[name]
            os.environ.update(kept, PATH=absolute_path_entries(kept.get("PATH", os.defpath)))
            if not webbrowser.open(page.as_uri()):
                output.hint("there is no browser here; open the address elsewhere")
            yield

    return opened()
