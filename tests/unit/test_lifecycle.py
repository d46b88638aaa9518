"""Test the table of transitions, and the docs that show it."""

from __future__ import annotations

import re

from jobdb.core.lifecycle import TRANSITIONS, next_status
from jobdb.model import EventKind, JobStatus
from tests.support.paths import DOCS


def test_no_transition_leaves_a_terminal_status() -> None:
    for status, _trigger in TRANSITIONS:
        assert not status.terminal


def test_every_event_is_legal_while_the_job_lives_and_never_after() -> None:
    for kind in EventKind:
        for status in JobStatus:
            assert (next_status(status, kind) is None) == status.terminal


def test_terminal_events_end_the_job_and_others_do_not() -> None:
    for (_status, trigger), target in TRANSITIONS.items():
        if trigger in set(EventKind):
            assert EventKind(trigger).terminal == target.terminal


def test_the_table_in_the_docs_is_the_table() -> None:
    page = (DOCS / "explanation" / "lifecycle.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| `(\w+)` \|$", page, re.MULTILINE)
    assert {
        (JobStatus(source), trigger): JobStatus(target)
        for source, triggers, target in rows
        for trigger in re.findall(r"\w+", triggers)
    } == TRANSITIONS
