"""The console on which tables and the live view are drawn: Rich's, with text that cannot steer the terminal.

Called by ``tables``; imports Rich. What Rich itself sends (colours, cursor movements) never goes through the text that
is drawn, so all text is sanitized once more where it is rendered.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from jobdb.system.terminal import SanitizingStream, sanitize


class SanitizingConsole(Console):
    """A console on stdout that draws text literally: no markup, no emoji names, no control characters."""

    def __init__(self) -> None:
        # A sanitizing stdout would make Rich's own escape sequences visible instead of sending them.
        file = sys.__stdout__ if isinstance(sys.stdout, SanitizingStream) else None
        super().__init__(file=file, highlight=False, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments with their text sanitized. Called for nested parts too, where it changes nothing.

        Rich cuts text to its width before it is sanitized here, so callers sanitize what they draw as well.
        """
        for segment in super().render(renderable, options):
            if segment.control or (segment.text.isascii() and segment.text.isprintable()):
                yield segment
            else:
                yield Segment(sanitize(segment.text, keep="\n"), segment.style)
