"""The Datasette plugin of the web view: the stable views, canned queries and a job's page, and nothing else.

Called by Datasette, in which ``server`` registers it; its functions are Datasette hooks. Everything that is not allowed
here is forbidden: tables, arbitrary SQL, downloads. May use only named statements and the list of views.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from datasette import Response, hookimpl
from markupsafe import Markup

from jobdb.schema import SEALED_COLUMNS, VIEWS

from ..model import JobStatus

DATABASE = "jobs"
_DAYS_SHOWN = 14
_QUERIES = Path(__file__).parent / "datasette_plugin.sql"
_FACETS = {"v_jobs": ["status", "agent"], "v_events": ["event"], "v_refusals": ["verdict"], "v_verdicts": ["verdict"]}
_SORT_COLUMNS = {
    "v_jobs": "created_at",
    "v_events": "recorded_at",
    "v_refusals": "number",
    "v_verdicts": "last_at",
    "v_workers": "heartbeat_at",
    "v_attempts": "started_at",
    "v_questions": "asked_at",
}
_DESCRIPTIONS = {
    "v_jobs": "Every job. Click an id for its page.",
    "v_events": "Events of all jobs, newest first.",
    "v_subscriptions": "The last event that each subscriber has accepted, per job.",
    "v_refusals": "Authentic events that were refused.",
    "v_verdicts": "How often each verdict was given.",
    "v_workers": "The workers of jobdb work, and when they were last heard of.",
    "v_attempts": "The attempts of workers, with the paths of their logs.",
    "v_questions": "What agents have asked, and the answers.",
}


def metadata() -> dict[str, Any]:
    """Return Datasette's metadata: titles, facets, canned queries."""
    views: dict[str, Any] = {}
    for view in VIEWS:
        views[view] = {"description": _DESCRIPTIONS[view], "facets": _FACETS.get(view, [])}
        if view in _SORT_COLUMNS:
            views[view]["sort_desc"] = _SORT_COLUMNS[view]
    return {
        "title": "jobdb",
        "description": "The job registry: jobs, their events, subscribers and refusals. Read-only.",
        "databases": {DATABASE: {"title": "Jobs", "tables": views, "queries": _canned_queries()}},
    }


def _canned_queries() -> dict[str, dict[str, Any]]:
    from ..engines.statements import read_statements

    queries: dict[str, dict[str, Any]] = {}
    for name, sql in read_statements(_QUERIES).items():
        if not name.startswith("page_"):
            queries[name] = {"sql": sql, "title": name.replace("_", " "), "hide_sql": True}
    queries["job"]["params"] = ["job_id"]
    return queries


def _page_queries() -> dict[str, str]:
    from ..engines.statements import read_statements

    return {name: sql for name, sql in read_statements(_QUERIES).items() if name.startswith("page_")}


def permission_allowed(action: str, resource: Any) -> bool:
    """Allow the site, its one database, the views and the canned queries; nothing else."""
    if action == "view-instance":
        return True
    if action == "view-database":
        return bool(resource == DATABASE)
    if action == "view-table":
        return resource[0] == DATABASE and resource[1] in VIEWS
    if action == "view-query":
        return bool(resource[0] == DATABASE)
    return False


def prepare_connection(conn: sqlite3.Connection, database: str) -> None:
    """Deny every read of a sealed secret, however the statement is written."""

    def allowed(operation: int, first: str | None, second: str | None, _database: str | None, _via: str | None) -> int:
        if operation == sqlite3.SQLITE_READ and (first, second) in SEALED_COLUMNS:
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    if database == DATABASE:
        conn.set_authorizer(allowed)


def render_cell(value: Any, column: str) -> Markup | None:
    """Link a job's id to its page."""
    if column == "job_id" and isinstance(value, str):
        return Markup('<a href="/{}/job?job_id={}">{}</a>').format(DATABASE, quote(value, safe=""), value)
    return None


def extra_template_vars(
    template: str, database: str | None, request: Any, datasette: Any
) -> Callable[[], Awaitable[dict[str, Any]]] | None:
    """Return the additional variables of the start page and of a job's page."""
    if template.startswith(f"query-{DATABASE}-job."):
        return lambda: _job(datasette, request.args.get("job_id") or "")
    if template.endswith("index.html") and database is None:
        return lambda: _overview(datasette)
    return None


def handle_exception(datasette: Any, request: Any, exception: Exception) -> Callable[[], Awaitable[Any]]:
    """Show an error as a page of this site instead of Datasette's own."""

    async def page() -> Any:
        status = int(getattr(exception, "status", 500))
        message = getattr(exception, "message", None) or (str(exception) if status < 500 else "")
        if status >= 500:
            logging.getLogger("jobdb").error("the web view failed on %s: %s", request.path, type(exception).__name__)
        title = getattr(exception, "title", None)
        error = {"ok": False, "status": status, "title": title, "error": message or "failed"}
        if request.path.endswith(".json"):
            return Response.json(error, status=status)
        return Response.html(await datasette.render_template("error.html", error, request=request), status=status)

    return page


async def _job(datasette: Any, job_id: str) -> dict[str, Any]:
    rows = await datasette.get_database(DATABASE).execute(_page_queries()["page_job"], {"job_id": job_id})
    row = rows.first()
    return {"job": {name: value for name, value in dict(row).items() if value not in (None, "")} if row else None}


async def _overview(datasette: Any) -> dict[str, Any]:
    """Return counts by status, and bars for jobs by day and status and time by agent, scaled to the longest."""
    registry = datasette.get_database(DATABASE)
    statements = _page_queries()
    counts = dict((await registry.execute(statements["page_counts"])).rows)
    days: dict[str, dict[str, int]] = {}
    since = {"days": f"-{_DAYS_SHOWN - 1} days"}
    for day, status, number in (await registry.execute(statements["page_days"], since)).rows:
        days.setdefault(day, {})[status] = number
    longest = max((sum(of.values()) for of in days.values()), default=1)
    times = [dict(row) for row in (await registry.execute(statements["page_times"])).rows]
    slowest = max((row["mean_sec"] for row in times), default=0) or 1
    return {
        "statuses": tuple(status.value for status in JobStatus),
        "counts": counts,
        "asking": (await registry.execute(statements["page_asking"])).single_value(),
        "questions": (await registry.execute(statements["page_questions"])).single_value(),
        "refused": (await registry.execute(statements["page_refused"])).single_value() or 0,
        "days": [
            {"day": day, "all": sum(of.values()), "parts": [(name, n, 100 * n / longest) for name, n in of.items()]}
            for day, of in days.items()
        ],
        "times": [{**row, "width": 100 * row["mean_sec"] / slowest} for row in times],
    }


# hookimpl marks a function in place. Datasette uses the last answer about a permission, so ours comes last.
hookimpl(trylast=True)(permission_allowed)
for _function in (prepare_connection, render_cell, extra_template_vars, handle_exception):
    hookimpl(_function)
