"""Pages of longer results, as ``Registry.jobs`` and similar verbs return them.

Used by the verbs that return pages (`cut_page`), as names of ``jobdb.model``; imports nothing from jobdb.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")
CursorT = TypeVar("CursorT")


class Page(list[ItemT], Generic[ItemT, CursorT]):
    """One page of a longer result: a list that knows whether more follows.

    Attributes:
        has_more: True if more items followed when the page was read.
        next_after: the ``after`` argument for the next page; None on the last page, and if the verb has no ``after``.

    Example:
        >>> for number in range(3):
        ...     job = registry.register(agent="codex", prompt="sort", job_id=f"sort-{number}")
        >>> page = registry.jobs(limit=2)
        >>> [job.job_id for job in page], page.has_more, page.next_after
        (['sort-2', 'sort-1'], True, 'sort-1')
        >>> [job.job_id for job in registry.jobs(limit=2, after=page.next_after)]
        ['sort-0']
    """

    has_more: bool = False
    next_after: CursorT | None = None


def cut_page(
    found: list[ItemT], limit: int, *, cursor: Callable[[ItemT], CursorT] | None = None
) -> Page[ItemT, CursorT]:
    """Return the first ``limit`` items as a page.

    Args:
        found: up to ``limit + 1`` items: one more than the page shows that more follow.
        limit: the length of the page.
        cursor: returns the ``after`` argument for continuing after an item.
    """
    page: Page[ItemT, CursorT] = Page(found)
    if len(page) > limit:
        del page[limit:]
        page.has_more = True
        if cursor is not None:
            page.next_after = cursor(page[-1])
    return page
