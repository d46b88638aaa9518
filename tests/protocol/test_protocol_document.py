"""Test docs/job-protocol.md against the code: the order of the table, the limits, the worked example."""

from __future__ import annotations

import re
from typing import Any

import pytest

from jobdb.core import protocol
from jobdb.core.protocol import parse, verify
from jobdb.core.replay import ReplayFacts, check_replay
from jobdb.engines.sql.accept_batch import MAX_REFUSALS, MAX_REFUSALS_PER_JOB
from jobdb.model import EventKind, JobStatus, Verdict
from tests.support.paths import DOCS

TEXT = (DOCS / "job-protocol.md").read_text("utf-8")


def code(language: str) -> str:
    match = re.search(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    assert match is not None
    return match[1]


def section(title: str) -> str:
    match = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert match is not None
    return match[2]


def test_the_verdicts_are_listed_in_the_order_of_the_checks() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", section("Verdicts"), re.MULTILINE)
    assert rows[: len(Verdict)] == [verdict.value for verdict in Verdict]


def test_the_documented_limits_are_those_of_the_code() -> None:
    fields = section("The event")
    for number in (protocol.MAX_SEQ, protocol.MAX_KID, protocol.MAX_JOB_ID_CHARS, protocol.MAX_DETAIL_CHARS):
        assert re.search(rf"\b{number}\b", fields), number
    for number in (
        protocol.MAX_PAYLOAD_BYTES,
        protocol.MAX_DEPTH,
        protocol.MAX_VALUES,
        MAX_REFUSALS_PER_JOB,
        MAX_REFUSALS,
    ):
        assert re.search(rf"\b{number}\b", TEXT), number
    assert all(f"`{kind}`" in fields for kind in EventKind)


def test_the_worked_example_is_correct() -> None:
    event = parse(code("json"))
    token = re.search(r"signed with the token `([^`]+)`", TEXT)
    assert token is not None and verify(event, token[1])
    assert code("text").strip().encode() == event.message


def test_the_documented_publisher_in_python_works() -> None:
    names: dict[str, Any] = {}
    exec(code("python"), names)
    payload = {key: value for key, value in parse(code("json")).payload.items() if key != "data"}
    line = names["signed"]({**payload, "data": {"attempt": 1, "x": 0.5}}, "some-token")
    assert verify(parse(line), "some-token")


@pytest.mark.parametrize("window", [0, 1, 2])
def test_the_table_of_windows_is_correct(window: int) -> None:
    table = section("Replay (FW-N7)")
    head = re.search(r"^\| last_seq 5, accepted 1 2 5 \|(.*)\|$", table, re.MULTILINE)
    row = re.search(rf"^\| window {window} \|(.*)\|$", table, re.MULTILINE)
    assert head is not None and row is not None
    seqs = [int(cell) for cell in re.findall(r"seq (\d+)", head[1])]
    cells = [cell.strip() for cell in row[1].split("|")]
    assert len(seqs) == len(cells) == 5
    for seq, cell in zip(seqs, cells, strict=True):
        verdict, _reason = check_replay(
            ReplayFacts(
                seq=seq,
                event_is_terminal=False,
                attempt=1,
                matches_recorded=True if seq in (1, 2, 5) else None,
                matches_recorded_end=False,
                start_seq=0,
                last_seq=5,
                skipped=seq in (3, 4),
                window=window,
                status=JobStatus.RUNNING,
                terminal_seq=None,
                job_attempt=1,
            )
        )
        assert cell.startswith(f"`{verdict}`")
