"""Check a database against the acknowledgement logs of its writers, with one function per invariant of the design.

Called after kills and power cuts, with everything reopened. Returns one sentence per broken promise; an empty
list is a pass. An unanswered call may have happened or not; the effect of an answered one must be there.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from tests.support.ack_log import read_ack_log

Call = dict[str, Any]
TERMINAL = ("completed", "error", "cancelled")


@dataclass
class History:
    """All calls of all workers: their starts and, where there was one, the answers."""

    calls: list[Call] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    stopped: Counter[str] = field(default_factory=Counter)
    crashed: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, *ack_logs: Path) -> History:
        history, open_calls = cls(), {}
        for ack_log in ack_logs:
            for entry in read_ack_log(ack_log):
                if "crashed" in entry:
                    history.crashed.append(entry["crashed"])
                    continue
                if "stopped" in entry:
                    history.stopped[entry["stopped"]] += 1
                    continue
                key = entry["seed"], entry["worker"], entry["number"]
                if "verb" in entry:
                    open_calls[key] = entry
                    history.calls.append(entry)
                elif "refused" in entry:
                    open_calls[key] |= {"refused": entry["refused"], "why": entry["why"]}
                    history.refused[entry["refused"]] += 1
                else:
                    open_calls[key]["answer"] = entry["answer"]
                    open_calls[key]["answered_at"] = entry["at"]
        history._add_calls_of_batches()
        return history

    def _add_calls_of_batches(self) -> None:
        """Add the claims and renewals of batches, and what batches gave back, as calls of their own."""
        for call in [call for call in self.calls if call["verb"] == "batch"]:
            answer = call.get("answer")
            refused = [tuple(key) for key in answer["refused"]] if answer else []
            for claim in answer["claims"] if answer else ():
                self.calls.append({**call, "verb": "claim", "answer": claim})
            for job_id, attempt, report in call["reports"]:
                one = {**call, "job": job_id, "attempt": attempt}
                if (job_id, attempt) in refused:
                    continue
                if report in ("back", "try"):
                    self.calls.append({**one, "verb": "release"})
                elif report == "renew":
                    until = {"job": job_id, "attempt": attempt, "until": answer["renewed_until"]} if answer else None
                    self.calls.append({**one, "verb": "renew", **({"answer": until} if until else {})})

    def answered(self, verb: str) -> Iterator[tuple[Call, dict[str, Any]]]:
        """Yield the answered calls of a verb with their answers."""
        for call in self.calls:
            if call["verb"] == verb and "answer" in call:
                yield call, call["answer"]

    def unanswered(self, verb: str) -> bool:
        """Return whether a call of the verb may have taken effect without an answer."""
        uncertain = ("StorageFailed", "SyncFailed")
        return any(
            call["verb"] == verb and "answer" not in call and call.get("refused", "SyncFailed") in uncertain
            for call in self.calls
        )

    def summary(self) -> str:
        answered = Counter(call["verb"] for call in self.calls if "answer" in call)
        unknown = sum("answer" not in call and "refused" not in call for call in self.calls)
        answer = ", ".join(f"{count} {verb}" for verb, count in sorted(answered.items()))
        return f"answered: {answer}; no answer: {unknown}; refused: {dict(self.refused)}; ended: {dict(self.stopped)}"


@dataclass
class DatabaseState:
    """The contents of the database."""

    jobs: dict[str, dict[str, Any]]
    events: dict[str, dict[int, dict[str, Any]]]
    accepted: dict[tuple[str, str], dict[str, Any]]
    problems: list[str]
    verdict_rows: int

    @classmethod
    def read(cls, database: Path) -> DatabaseState:
        connection = apsw.Connection(str(database))
        connection.set_busy_timeout(20_000)
        try:
            return cls._read(connection)
        finally:
            connection.close()

    @classmethod
    def _read(cls, connection: apsw.Connection) -> DatabaseState:
        problems = [f"integrity_check: {row[0]}" for row in connection.execute("PRAGMA integrity_check")]
        problems = [] if problems == ["integrity_check: ok"] else problems
        problems += [f"foreign_key_check: {row}" for row in connection.execute("PRAGMA foreign_key_check")]
        jobs = {
            row[0]: {"status": row[1], "last_seq": row[2], "attempt": row[3], "key": row[4], "kid": row[5]}
            for row in connection.execute("SELECT job_id, status, last_seq, attempt, idempotency_key, kid FROM jobs")
        }
        events: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
        for job_id, seq, kind, attempt, payload in connection.execute(
            "SELECT job_id, seq, event, e.attempt, payload FROM events AS e JOIN jobs ON jobs.id = e.job"
        ):
            detail = json.loads(payload)["detail"]
            events[job_id][seq] = {"event": kind, "attempt": attempt, "payload": payload, "detail": detail}
        accepted = {}
        for number, job_id, subscriber, start, last, handled in connection.execute(
            "SELECT s.id, job_id, subscriber, start_seq, s.last_seq, handled_seq "
            "FROM subscriptions AS s JOIN jobs ON jobs.id = s.job"
        ):
            gaps = list(connection.execute("SELECT first_seq, last_seq FROM gaps WHERE subscription = ?", (number,)))
            accepted[subscriber, job_id] = {"start": start, "last": last, "handled": handled, "gaps": gaps}
        verdict_rows = connection.execute("SELECT count(*) FROM verdict_counts").get
        return cls(jobs, events, accepted, problems, verdict_rows)

    def has_accepted(self, subscriber: str, job_id: str, seq: int) -> bool:
        state = self.accepted.get((subscriber, job_id))
        return (
            state is not None
            and state["start"] < seq <= state["last"]
            and not any(first <= seq <= last for first, last in state["gaps"])
        )


def check_history(database: Path, *ack_logs: Path, without_power_loss: bool = False) -> tuple[list[str], History]:
    """Check one database.

    Args:
        database: the file.
        ack_logs: of all its workers.
        without_power_loss: no power was cut, so that "nothing was written" can be held to its word: after a cut the
        request
            that failed may have reached the disk all the same.

    Returns:
        The broken promises, and the history for the report. A database that cannot be read breaks them all.
    """
    history = History.read(*ack_logs)
    try:
        found = DatabaseState.read(database)
    except apsw.Error as error:
        return [f"the database cannot be read: {error}"], history
    pruned = {job for _, answer in history.answered("prune") for job in answer["jobs"]}
    violations = [*found.problems, *(f"a verb raised what is no error of jobdb:\n{trace}" for trace in history.crashed)]
    for check in (_jobs, _claims, _numbers, _published, _batches, _terminal, _accepted, _tokens):
        violations += check(history, found, pruned)
    if without_power_loss:
        violations += _refused(history, found)
    return violations, history


def _jobs(history: History, found: DatabaseState, pruned: set[str]) -> Iterator[str]:
    """Check I2 and I8: registered jobs are there unless they were pruned; pruned jobs stay away."""
    may_be_pruned = history.unanswered("prune")
    for _, answer in history.answered("register"):
        for job_id in answer["jobs"]:
            if job_id not in found.jobs and job_id not in pruned and not may_be_pruned:
                yield f"I2: job {job_id} was registered and is gone"
    for job_id in pruned & found.jobs.keys():
        yield f"I2: job {job_id} was pruned and is back"
    keys = Counter(job["key"] for job in found.jobs.values())
    for key, count in keys.items():
        if count > 1:
            yield f"I1: idempotency key {key} made {count} jobs"


def _claims(history: History, found: DatabaseState, pruned: set[str]) -> Iterator[str]:
    """Check I2 and I3: each attempt went to one worker, and not before the lease of the attempt before was over."""
    owners: dict[tuple[str, int], Call] = {}
    until: dict[tuple[str, int], float | None] = {}
    given_up = {
        (call["job"], call["attempt"])
        for call in history.calls
        if (call["verb"] == "release" or (call["verb"] == "renew" and "answer" not in call))
        and call.get("refused") in (None, "SyncFailed", "StorageFailed")
    }
    for verb in ("claim", "renew"):
        # The last renewal counts; those in batches are not in the order of the calls.
        for call, answer in sorted(history.answered(verb), key=lambda found: found[0]["answered_at"]):
            if answer["job"] is None:
                continue
            key = answer["job"], answer["attempt"]
            if verb == "claim" and key in owners:
                yield f"I3: attempt {key} was given to workers {owners[key]['worker']} and {call['worker']}"
            if verb == "claim":
                owners[key] = call
            until[key] = answer["until"]
            job = found.jobs.get(answer["job"])
            if job is not None and job["attempt"] < answer["attempt"]:
                yield f"I2: {verb} of attempt {key} was answered and the job is at attempt {job['attempt']}"
    for (job_id, attempt), call in owners.items():
        before = job_id, attempt - 1
        if before not in owners or before in given_up:
            continue
        lease = until[before]
        if lease is None or call["answer"]["now"] < lease - 0.002:
            yield f"I3: attempt {attempt} of {job_id} was given while the lease of the one before ran"
    superseded = {(job_id, attempt - 1): call for (job_id, attempt), call in owners.items()}
    for verb in ("publish", "renew", "release"):
        for call, _ in history.answered(verb):
            later = superseded.get((call["job"], call["attempt"]))
            if later is not None and call["at"] > later["answered_at"]:
                yield f"I3: {verb} with attempt {call['attempt']} of {call['job']} was taken after the next claim"


def _numbers(history: History, found: DatabaseState, pruned: set[str]) -> Iterator[str]:
    """Check I4: seq counts from 1 without gaps, attempts never fall, no number was assigned twice."""
    for job_id, job in found.jobs.items():
        events = found.events.get(job_id, {})
        if sorted(events) != list(range(1, job["last_seq"] + 1)):
            yield f"I4: job {job_id} has last_seq {job['last_seq']} and the events {sorted(events)}"
        attempts = [events[seq]["attempt"] or 0 for seq in sorted(events)]
        if attempts != sorted(attempts):
            yield f"I3: the attempts of the events of {job_id} go back: {attempts}"
    given: dict[tuple[str, int], str] = {}
    for call, answer in history.answered("publish"):
        for seq, _, _, payload in answer["events"]:
            if given.setdefault((call["job"], seq), payload) != payload:
                yield f"I4: seq {seq} of {call['job']} was given out twice"


def _published(history: History, found: DatabaseState, pruned: set[str]) -> Iterator[str]:
    """Check I2: what was published is recorded, to the byte."""
    for call, answer in history.answered("publish"):
        if call["job"] not in found.jobs:
            continue
        for seq, _, _, payload in answer["events"]:
            stored = found.events[call["job"]].get(seq)
            if stored is None:
                yield f"I2: event {seq} of {call['job']} was published and is gone"
            elif stored["payload"] != payload:
                yield f"I2: event {seq} of {call['job']} is not what was published"


def _batches(history: History, found: DatabaseState, pruned: set[str]) -> Iterator[str]:
    """Check I2: what a batch did not refuse is recorded, and what it ended has ended."""
    for call, answer in history.answered("batch"):
        refused = {tuple(key) for key in answer["refused"]}
        returned = {(job_id, attempt): action for job_id, attempt, action in answer["returned"]}
        for job_id, attempt, report in call["reports"]:
            if job_id not in found.jobs or (job_id, attempt) in refused:
                continue
            stored = [event["event"] for event in found.events[job_id].values() if event["detail"] == call["detail"]]
            if report in ("progress", "completed") and stored != [report]:
                yield f"I2: {report} of {job_id} was reported in a batch, and stored are {stored}"
            if report in ("back", "try") and (job_id, attempt) not in returned:
                yield f"I2: a batch said nothing about attempt {attempt} of {job_id}, which it gave back"
            if returned.get((job_id, attempt)) == "ended" and found.jobs[job_id]["status"] != "error":
                yield f"I7: a batch ended {job_id}, which is {found.jobs[job_id]['status']}"


def _terminal(history: History, found: DatabaseState, pruned: set[str]) -> Iterator[str]:
    """Check I7: a job ends once, and its end stays."""
    ends: dict[str, set[str]] = defaultdict(set)
    for call, answer in history.answered("publish"):
        ends[call["job"]] |= {f"{kind} at {seq}" for seq, kind, _, _ in answer["events"] if kind in TERMINAL}
    for call, answer in history.answered("cancel"):
        ends[call["job"]].add(answer["status"])
    for _, answer in history.answered("reap"):
        for job_id, action in answer["reaped"]:
            if action == "ended":
                ends[job_id].add("reaped error")
    for job_id, ways in ends.items():
        if len(ways) > 1 and ways != {"cancelled"}:
            yield f"I7: job {job_id} ended as {sorted(ways)}"
        if job_id in found.jobs and ways:
            status = found.jobs[job_id]["status"]
            if not any(status in way for way in ways):
                yield f"I7: job {job_id} was reported as ended as {sorted(ways)} and is {status}"
    for job_id, events in found.events.items():
        final = [event["event"] for _, event in sorted(events.items()) if event["event"] in TERMINAL]
        status = found.jobs[job_id]["status"]
        if final and (len(final) > 1 or final[0] != status or events[max(events)]["event"] != status):
            yield f"I7: job {job_id} is {status} and its terminal events are {final}"


def _accepted(history: History, found: DatabaseState, pruned: set[str]) -> Iterator[str]:
    """Check I2, I5 and I6: no event twice, none forged, and what was accepted stays accepted."""
    seen: set[tuple[str, str, int]] = set()
    for call, answer in history.answered("accept"):
        for job_id, seq, verdict in answer["verdicts"]:
            name = f"seq {seq} of {job_id} by {call['subscriber']}"
            if call["forged"] and verdict in ("accepted", "duplicate", "conflict", "replayed"):
                yield f"I6: forged {name} was {verdict}"
            if verdict not in ("accepted", "duplicate"):
                continue
            if verdict == "accepted":
                if (call["subscriber"], job_id, seq) in seen:
                    yield f"I5: {name} was accepted twice"
                seen.add((call["subscriber"], job_id, seq))
            if job_id in found.jobs and not found.has_accepted(call["subscriber"], job_id, seq):
                yield f"I2: {name} was {verdict} and is no longer accepted"
    for call, answer in history.answered("follow"):
        for seq in answer["seqs"]:
            if call["job"] in found.jobs and not found.has_accepted(call["subscriber"], call["job"], seq):
                yield f"I2: seq {seq} of {call['job']} was handed to {call['subscriber']} and is not accepted"
    for call, _ in history.answered("handled"):
        state = found.accepted.get((call["subscriber"], call["job"]))
        if call["job"] in found.jobs and (state is None or state["handled"] < call["seq"]):
            yield f"I2: seq {call['seq']} of {call['job']} was handled by {call['subscriber']} and would come again"
    if found.verdict_rows > 13 * (len(found.jobs) + 1):
        yield f"I6: {found.verdict_rows} counters for {len(found.jobs)} jobs"


def _tokens(history: History, found: DatabaseState, pruned: set[str]) -> Iterator[str]:
    """Check I2: an acknowledged rotation holds, and no key number was assigned twice."""
    given: Counter[tuple[str, int]] = Counter()
    for call, answer in history.answered("rotate"):
        given[call["job"], answer["kid"]] += 1
        if call["job"] in found.jobs and found.jobs[call["job"]]["kid"] < answer["kid"]:
            yield f"I2: key {answer['kid']} of {call['job']} was made and is gone"
    for (job_id, kid), count in given.items():
        if count > 1:
            yield f"I4: key {kid} of {job_id} was given out {count} times"


def _refused(history: History, found: DatabaseState) -> Iterator[str]:
    """Check I1: a verb that failed with StorageFailed changed nothing."""
    keys = {job["key"] for job in found.jobs.values()}
    details = {stored["detail"] for events in found.events.values() for stored in events.values()}
    for call in history.calls:
        if call.get("refused") != "StorageFailed":
            continue
        name = f"{call['seed']}-{call['number']}-0", f"{call['seed']}.{call['number']}"
        if (call["verb"] == "register" and name[0] in keys) or (
            call["verb"] in ("publish", "batch") and name[1] in details
        ):
            yield f"I1: {call['verb']} said that nothing was written, and it was ({call['why']})"
