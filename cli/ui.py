"""The ``ui`` command, which shows the registry in a web browser.

Called by the ``jobdb`` group (``commands.py``), when the command is run; calls ``jobdb.ui``, which serves the pages,
and opens the browser without this process's secrets.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from . import output
from .context import resolve_url
from .messages import print_hint
from .parameters import AsJson

if TYPE_CHECKING:
    from jobdb.ui import SiteAddress


def ui(
    ctx: typer.Context,
    port: Annotated[
        int, typer.Option("--port", metavar="N", help="The port on 127.0.0.1; 0: any free port.", min=0, max=65535)
    ] = 8011,
    open_: Annotated[bool, typer.Option("--open", help="Open the address in this machine's browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """Browse the registry in a web browser.

    Shows jobs with facets by status and agent, a page for each job with its timeline, running jobs, refused events
    and durations. The pages are read-only and can be opened on this machine only, with the printed address: it
    contains a key. Press Ctrl-C to stop. From another machine: ssh -L 8011:127.0.0.1:8011 HOST.
    Requires: pip install 'jobdb[ui]'.

    \b
    Example:
      jobdb ui --open
    """
    from jobdb.ui import serve

    with ExitStack() as stack, suppress(KeyboardInterrupt):

        def ready(site: SiteAddress) -> None:
            if as_json:
                output.print_json({"address": site.url, "port": site.port})
            else:
                output.print_line(site.url)
            output.flush()
            print_hint("press Ctrl-C to stop")
            if open_:
                stack.enter_context(_open_browser(site.url))

        serve(resolve_url(ctx), port=port, ready=ready)


@contextmanager
def _open_browser(address: str) -> Iterator[None]:
    """Open the browser on a private file that redirects to the address: everybody can see a browser's arguments."""
    import html
    import os
    import tempfile
    import webbrowser
    from pathlib import Path

    from jobdb.system.subprocess_env import absolute_path_entries, without_secrets

    with tempfile.TemporaryDirectory(prefix="jobdb-ui-") as folder:
        page = Path(folder) / "jobdb.html"
        page.write_text(f'<meta http-equiv="refresh" content="0; url={html.escape(address)}">', "utf-8")
        # webbrowser passes this process's environment to the browser and finds the browser by its PATH. It stays
        # changed: the browser may be started at any time while the pages are served, and they need no secret.
        kept = without_secrets(os.environ)
        for name in os.environ.keys() - kept.keys():
            del os.environ[name]
        os.environ.update(kept, PATH=absolute_path_entries(kept.get("PATH", os.defpath)))
        if not webbrowser.open(page.as_uri()):
            print_hint("no browser was found on this machine; open the address elsewhere")
        yield
