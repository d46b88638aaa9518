"""The console that tables and the live view are drawn on: Rich's, whose text cannot steer the terminal.

Called by ``output`` when something is drawn; imports Rich. What Rich itself sends (colours, the cursor's moves) never
goes through the text that is drawn, so all text is made visible once more where it becomes a part of the picture.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from jobdb.system.terminal import SanitizingStream, sanitize


class PlainConsole(Console):
    """A console on stdout that draws text as it is written: no markup, no emoji names, no controls."""

    def __init__(self) -> None:
        # The guard of stdout would show Rich's own escape sequences instead of letting them through.
        file = sys.__stdout__ if isinstance(sys.stdout, SanitizingStream) else None
        super().__init__(file=file, highlight=False, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the parts of the picture, their text visible. Called for parts of parts too, where it changes nothing.

        Rich would cut a text before it is made visible, so whoever draws makes it visible first.
        """
        for segment in super().render(renderable, options):
            if segment.control or (segment.text.isascii() and segment.text.isprintable()):
                yield segment
            else:
                yield Segment(sanitize(segment.text, keep="\n"), segment.style)
