"""How the work goes, in numbers: by status, agent and day, durations, refusals; as data and for Prometheus.

Called by ``jobdb stats`` and by the live view. Reads one moment's state.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .model import format_time, from_ms
from .registry import Registry

_STATEMENTS = Path(__file__).parent / "stats.sql"


@dataclass(frozen=True, slots=True)
class Stats:
    """The numbers of one moment. Durations are seconds from claim to end; times are UTC."""

    taken_at: str
    by_status: dict[str, int]
    by_agent: list[dict[str, Any]]
    by_day: list[dict[str, Any]]
    durations: list[dict[str, Any]]
    refusals: list[dict[str, Any]]
    events: int
    outbox: int

    def as_dict(self) -> dict[str, Any]:
        return {
            "taken_at": self.taken_at,
            "by_status": self.by_status,
            "by_agent": self.by_agent,
            "by_day": self.by_day,
            "durations": self.durations,
            "refusals": self.refusals,
            "events": self.events,
            "outbox": self.outbox,
        }


def collect(registry: Registry, *, days: int = 14) -> Stats:
    """The numbers of now.

    Args:
        registry: the open registry.
        days: how many days back ``by_day`` and ``durations`` go.
    """
    store = registry.engine.store
    store.learn(_STATEMENTS)
    with store.read() as tx:
        now = tx.now_ms
        since = now - days * 86_400_000
        by_status = dict.fromkeys(("pending", "running", "completed", "error", "cancelled"), 0)
        by_status.update(tx.all("count_by_status"))
        return Stats(
            taken_at=format_time(from_ms(now)) or "",
            by_status=by_status,
            by_agent=[
                {"agent": agent, "status": status, "jobs": jobs} for agent, status, jobs in tx.all("stats_by_agent")
            ],
            by_day=[
                {"day": (format_time(from_ms(int(day) * 86_400_000)) or "")[:10], "status": status, "jobs": jobs}
                for day, status, jobs in tx.all("stats_by_day", since=since)
            ],
            durations=[
                {
                    "agent": agent,
                    "jobs": jobs,
                    "mean_sec": round(float(mean) / 1000, 3),
                    "longest_sec": round(float(longest) / 1000, 3),
                }
                for agent, jobs, mean, longest in tx.all("stats_durations", since=since)
            ],
            refusals=[
                {"verdict": verdict, "count": int(count), "last_at": format_time(from_ms(last_ms))}
                for verdict, count, last_ms in tx.all("verdict_totals")
            ],
            events=_one(tx.one("stats_events")),
            outbox=_one(tx.one("count_outbox")),
        )


def _one(row: tuple[Any, ...] | None) -> int:
    return int(row[0]) if row else 0


def prometheus(stats: Stats) -> str:
    """The numbers in Prometheus' text format. Source: prometheus.io, "Exposition formats", version 0.0.4."""
    lines: list[str] = []

    def family(name: str, kind: str, text: str, samples: list[tuple[dict[str, str], float]]) -> None:
        lines.append(f"# HELP {name} {text}")
        lines.append(f"# TYPE {name} {kind}")
        for labels, value in samples:
            shown = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
            lines.append(f"{name}{{{shown}}} {value:g}" if shown else f"{name} {value:g}")

    family("jobdb_jobs", "gauge", "Jobs by status.", [({"status": s}, n) for s, n in stats.by_status.items()])
    family(
        "jobdb_agent_jobs",
        "gauge",
        "Jobs by agent and status.",
        [({"agent": row["agent"], "status": row["status"]}, row["jobs"]) for row in stats.by_agent],
    )
    family("jobdb_events", "gauge", "Events recorded and kept.", [({}, stats.events)])
    family("jobdb_outbox_events", "gauge", "Events that wait for the broker.", [({}, stats.outbox)])
    family(
        "jobdb_refusals_total",
        "counter",
        "Wire events refused, by verdict.",
        [({"verdict": row["verdict"]}, row["count"]) for row in stats.refusals],
    )
    return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
