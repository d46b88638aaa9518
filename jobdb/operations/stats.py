"""Statistics: jobs by status, agent and day, durations, and refusals, as data and in Prometheus' text format.

Called by ``jobdb stats``; calls an open registry, and reads all numbers in one transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..core import arguments
from ..engines.sql.statements import ACCEPT, JOBS, OUTBOX
from ..engines.statements import Statement, StatementSet
from ..engines.store import Row
from ..model import JobStatus, format_time, from_ms
from ..registry import Registry


class StatsStatements(StatementSet):
    """The statements of ``stats.sql``."""

    stats_by_agent: Statement
    stats_by_day: Statement
    stats_readiness: Statement
    stats_durations: Statement
    stats_events: Statement
    stats_open_questions: Statement


STATS = StatsStatements(Path(__file__).with_name("stats.sql"))

_DAY_MS = 86_400_000
_MAX_DAYS = 3660


@dataclass(frozen=True, slots=True)
class AgentDurations:
    """The durations of one agent's jobs from claim to end, in seconds."""

    agent: str
    jobs: int
    mean_sec: float
    longest_sec: float

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values under stable names."""
        return {
            "agent": self.agent,
            "jobs": self.jobs,
            "mean_sec": self.mean_sec,
            "longest_sec": self.longest_sec,
        }


class VerdictTotal(NamedTuple):
    """The number of times that a verdict was given, and when it was last given, UTC."""

    times: int
    last_at: str | None


@dataclass(frozen=True, slots=True)
class Stats:
    """The statistics of a registry at one point in time.

    Attributes:
        taken_at: when they were taken, UTC.
        days: how many days back ``by_day`` and ``durations`` go.
        jobs: the number of jobs per status.
        by_agent: the number of jobs per status, for each agent that has jobs.
        by_day: the number of jobs per current status, for each UTC day on which jobs were registered, oldest first.
        durations: the durations of jobs that have ended, by agent.
        refusals: how often each verdict was given, and when it was last given.
        events: the number of stored events.
        outbox: the number of events that wait for the broker.
        delayed: how many of the pending jobs nobody can claim yet.
        retried: how many of the jobs that have not ended have used up a try.
        open_questions: the number of questions that wait for an answer.
    """

    taken_at: str
    days: int
    jobs: dict[str, int]
    by_agent: dict[str, dict[str, int]]
    by_day: dict[str, dict[str, int]]
    durations: tuple[AgentDurations, ...]
    refusals: dict[str, VerdictTotal]
    events: int
    outbox: int
    delayed: int = 0
    retried: int = 0
    open_questions: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values under the stable names of ``jobdb stats --json``."""
        return {
            "taken_at": self.taken_at,
            "days": self.days,
            "jobs": self.jobs,
            "by_agent": self.by_agent,
            "by_day": self.by_day,
            "durations": [duration.as_dict() for duration in self.durations],
            "refusals": {verdict: total.times for verdict, total in self.refusals.items()},
            "refused_last_at": {verdict: total.last_at for verdict, total in self.refusals.items()},
            "events": self.events,
            "outbox": self.outbox,
            "delayed": self.delayed,
            "retried": self.retried,
            "open_questions": self.open_questions,
        }


def collect(registry: Registry, *, days: int = 14) -> Stats:
    """Return the current statistics of a registry.

    Args:
        registry: the open registry.
        days: how many days back ``by_day`` and ``durations`` go; 1 to 3660.

    Returns:
        The numbers, all read in one transaction.

    Raises:
        InvalidInput: ``days`` is out of range.

    Example:
        with Registry.open("jobs.db") as registry:
            stats = collect(registry, days=7)
        print(stats.jobs["running"], "jobs are running")
    """
    days = arguments.integer("days", days, least=1, most=_MAX_DAYS)
    with registry.store.read() as tx:
        now = tx.now_ms
        since = now - days * _DAY_MS
        by_agent: dict[str, dict[str, int]] = {}
        for agent, status, count in tx.all(STATS.stats_by_agent):
            by_agent.setdefault(agent, _zero_per_status())[status] = int(count)
        by_day: dict[str, dict[str, int]] = {}
        for number, status, count in tx.all(STATS.stats_by_day, since=since):
            day = (format_time(from_ms(int(number) * _DAY_MS)) or "")[:10]
            by_day.setdefault(day, _zero_per_status())[status] = int(count)
        delayed, retried = tx.all(STATS.stats_readiness, now=now)[0]
        jobs = _zero_per_status()
        jobs.update({status: int(count) for status, count in tx.all(JOBS.count_by_status)})
        return Stats(
            taken_at=format_time(from_ms(now)) or "",
            days=days,
            jobs=jobs,
            by_agent=by_agent,
            by_day=by_day,
            durations=tuple(
                AgentDurations(agent, int(count), round(float(mean) / 1000, 3), round(float(longest) / 1000, 3))
                for agent, count, mean, longest in tx.all(STATS.stats_durations, since=since)
            ),
            refusals={
                verdict: VerdictTotal(int(count), format_time(from_ms(int(last_ms))))
                for verdict, count, last_ms in tx.all(ACCEPT.verdict_totals)
            },
            events=_count(tx.one(STATS.stats_events)),
            outbox=_count(tx.one(OUTBOX.count_outbox)),
            delayed=int(delayed),
            retried=int(retried),
            open_questions=_count(tx.one(STATS.stats_open_questions)),
        )


def _zero_per_status() -> dict[str, int]:
    return {status.value: 0 for status in JobStatus}


def _count(row: Row | None) -> int:
    assert row is not None  # a count is always one row
    return int(row[0])


def prometheus(stats: Stats) -> str:
    """Return statistics in Prometheus' text format, version 0.0.4.

    Source: https://prometheus.io/docs/instrumenting/exposition_formats/

    Example:
        Path("jobdb.prom").write_text(prometheus(collect(registry)))
    """
    lines: list[str] = []

    def family(name: str, kind: str, help_text: str, samples: list[tuple[dict[str, str], float]]) -> None:
        lines.append(f"# HELP {name} {help_text}")
        lines.append(f"# TYPE {name} {kind}")
        for labels, value in samples:
            listed = ",".join(f'{key}="{_escape(label)}"' for key, label in labels.items())
            lines.append(f"{name}{{{listed}}} {value!r}" if listed else f"{name} {value!r}")

    family("jobdb_jobs", "gauge", "Jobs by status.", [({"status": s}, n) for s, n in stats.jobs.items()])
    family("jobdb_delayed_jobs", "gauge", "Pending jobs that nobody can claim yet.", [({}, stats.delayed)])
    family("jobdb_retried_jobs", "gauge", "Jobs that have not ended and have used up a try.", [({}, stats.retried)])
    family(
        "jobdb_agent_jobs",
        "gauge",
        "Jobs by agent and status.",
        [
            ({"agent": agent, "status": status}, count)
            for agent, counts in stats.by_agent.items()
            for status, count in counts.items()
        ],
    )
    span = f"of the jobs that ended in the last {stats.days} days, by agent."
    family(
        "jobdb_job_duration_mean_seconds",
        "gauge",
        f"Mean time from claim to end {span}",
        [({"agent": agent.agent}, agent.mean_sec) for agent in stats.durations],
    )
    family(
        "jobdb_job_duration_longest_seconds",
        "gauge",
        f"Longest time from claim to end {span}",
        [({"agent": agent.agent}, agent.longest_sec) for agent in stats.durations],
    )
    family("jobdb_events", "gauge", "Events recorded and kept.", [({}, stats.events)])
    family("jobdb_outbox_events", "gauge", "Events that wait for the broker.", [({}, stats.outbox)])
    family("jobdb_open_questions", "gauge", "Questions that wait for an answer.", [({}, stats.open_questions)])
    family(
        "jobdb_refusals_total",
        "counter",
        "Wire events refused, by verdict.",
        [({"verdict": verdict}, total.times) for verdict, total in stats.refusals.items()],
    )
    return "\n".join(lines) + "\n"


def _escape(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
