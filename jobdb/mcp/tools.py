"""The table of tools, and which of them a server offers.

Called by the server when it starts; calls nothing but the constructors of its entries. The descriptions are for a
model: what the tool does, when to use it, and what its result means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model import JobStatus
from . import verbs
from .schemas import (
    CLAIM,
    EVENT,
    FLAG,
    INTEGER,
    INTEGER_OR_NULL,
    JOB,
    OBJECT,
    QUESTION,
    TEXT,
    TEXT_OR_NULL,
    TEXTS,
    described,
    list_of,
    or_null,
    record,
)
from .tool import Tool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .own_job import OwnJob
    from .schemas import Schema

_JOB_ID = described(TEXT, "The job's id.")
_ATTEMPT = described(INTEGER, "The attempt that claim returned.")
_LEASE_SEC = described(
    {"type": "number"},
    f"The claim ends after so many seconds unless it is renewed. Default: {verbs.DEFAULT_LEASE_SEC:g}.",
)
_AGENT = described(TEXT, "Only jobs for this agent, such as codex or claude-code.")
_AGENT_SESSION = described(TEXT, "Only jobs for this session of the agent.")
_DETAIL = described(TEXT, "A sentence for people.")
_DATA = described(OBJECT, "Further facts, a JSON object.")
_KEY = described(TEXT, "The question's key.")


def _wait_sec(default: float, what: str) -> Schema:
    limit = verbs.MAX_WAIT_SEC
    return described({"type": "number"}, f"How long to wait {what}, in seconds, 0 to {limit}. Default: {default:g}.")


TOOLS = (
    Tool(
        name="register",
        description="Register a job for an agent, and return it. It is pending until a worker claims it.",
        arguments={
            "agent": described(TEXT, "The agent that is to do it: claude-code, codex, human, …"),
            "prompt": described(TEXT, "What is to be done."),
            "job_id": described(TEXT, "Its id. Default: a generated one."),
            "agent_session": described(TEXT, "The agent's session that is to do it."),
            "priority": described(INTEGER, "Jobs of higher priority are claimed first. Default: 0."),
            "timeout_sec": described(INTEGER, "The job ends as error after so many seconds of running. Default: 3600."),
            "idle_timeout_sec": described(
                INTEGER, "It ends after so many seconds of silence; 0 is never, the default."
            ),
            "max_attempts": described(INTEGER, "How many tries it has."),
            "expected_artifacts": described(TEXTS, "Relative paths of the files that it should create."),
            "extra": described(OBJECT, "Further fields to store."),
            "idempotency_key": described(TEXT, "Registering again with the same key returns the same job."),
        },
        required=("agent", "prompt"),
        result=JOB,
        run=verbs.register,
    ),
    Tool(
        name="claim",
        description="Claim the next ready job: highest priority first, then the oldest. Its prompt is your task. Pass "
        "its job_id and attempt to every tool that works on it. Renew the claim before lease_expires_at, and finish "
        "with complete or fail, or give the job back with release. claimed is false if no job is ready.",
        arguments={
            "agent": _AGENT,
            "agent_session": _AGENT_SESSION,
            "job_id": described(TEXT, "Only this job."),
            "lease_sec": _LEASE_SEC,
            "wait_sec": _wait_sec(0, "for a job if none is ready"),
        },
        result=record({"claimed": FLAG, "claim": or_null(CLAIM)}),
        run=verbs.claim,
    ),
    Tool(
        name="renew",
        description="Extend the lease of a claim; it then ends lease_sec from now. If this is refused, another worker "
        "has the job, or it has ended: stop the work.",
        arguments={"job_id": _JOB_ID, "attempt": _ATTEMPT, "lease_sec": _LEASE_SEC},
        required=("job_id", "attempt"),
        result=CLAIM,
        run=verbs.renew,
    ),
    Tool(
        name="release",
        description="Give a claim up, so that another worker can claim the job.",
        arguments={
            "job_id": _JOB_ID,
            "attempt": _ATTEMPT,
            "delay_sec": described({"type": "number"}, "Nobody can claim it for so many seconds. Default: 0."),
            "reason": described(TEXT, "Why, a sentence for people."),
        },
        required=("job_id", "attempt"),
        result=JOB,
        run=verbs.release,
    ),
    Tool(
        name="publish",
        description="Publish an event of a job: started once, then progress as you get on.",
        arguments={
            "job_id": _JOB_ID,
            "event": {"type": "string", "enum": ["started", "progress"], "description": "The event."},
            "attempt": _ATTEMPT,
            "detail": _DETAIL,
            "data": described(OBJECT, 'Further facts, a JSON object, such as {"pct": 30}.'),
        },
        required=("job_id", "event"),
        result=EVENT,
        run=verbs.publish,
    ),
    Tool(
        name="complete",
        description="End a job as completed. This is final.",
        arguments={"job_id": _JOB_ID, "attempt": _ATTEMPT, "detail": _DETAIL, "data": _DATA},
        required=("job_id",),
        result=EVENT,
        run=verbs.complete,
    ),
    Tool(
        name="fail",
        description="End a job as failed. This is final; release gives it to another worker instead.",
        arguments={"job_id": _JOB_ID, "attempt": _ATTEMPT, "detail": _DETAIL, "data": _DATA},
        required=("job_id",),
        result=EVENT,
        run=verbs.fail,
    ),
    Tool(
        name="ask",
        description="Ask a person, or the agent that delegated the job, and wait for the answer. Go on only if allowed "
        "is true, or with the answer in question.answer if you gave choices of your own. If outcome is unanswered, or "
        "the call fails, nothing is allowed: ask again with the same key to go on waiting, or stop.",
        arguments={
            "job_id": _JOB_ID,
            "text": described(TEXT, "The question."),
            "key": described(
                TEXT, "What the question is known by: the same key is the same question. Default: generated."
            ),
            "choices": described(TEXTS, "The possible answers; empty for any text. Default: allow, deny."),
            "attempt": _ATTEMPT,
            "wait_sec": _wait_sec(verbs.DEFAULT_ASK_SEC, "for the answer"),
        },
        required=("job_id", "text"),
        result=record(
            {"outcome": {"type": "string", "enum": ["answered", "unanswered"]}, "allowed": FLAG, "question": QUESTION}
        ),
        run=verbs.ask,
    ),
    Tool(
        name="questions",
        description="List the questions of agents, the oldest first: the open ones, which wait for an answer.",
        arguments={
            "job_id": described(TEXT, "Only those of this job."),
            "open_only": described({"type": "boolean"}, "false: the answered ones, too. Default: true."),
            "after": described(INTEGER, "The next_after of the page before."),
            "limit": described(INTEGER, "How many at most. Default: 100."),
        },
        result=record({"questions": list_of(QUESTION), "next_after": INTEGER_OR_NULL}),
        run=verbs.questions,
        is_read_only=True,
    ),
    Tool(
        name="answer",
        description="Answer a question of another agent. The first answer is final. Answer only what you were told to "
        "answer; questions that were asked through this server are refused.",
        arguments={
            "job_id": _JOB_ID,
            "key": _KEY,
            "answer": described(TEXT, "allow or deny, or one of the question's choices, or any text if it has none."),
            "message": described(TEXT, "What the agent is told besides."),
        },
        required=("job_id", "key", "answer"),
        result=QUESTION,
        run=verbs.answer,
    ),
    Tool(
        name="show",
        description="Show a job, with its prompt and state, and its open questions.",
        arguments={"job_id": _JOB_ID},
        required=("job_id",),
        result=record({"job": JOB, "open_questions": list_of(QUESTION)}),
        run=verbs.show,
        is_read_only=True,
    ),
    Tool(
        name="list",
        description=f"List jobs, the newest first. Prompts are cut after {verbs.SHOWN_PROMPT_CHARS} characters; show "
        "has the whole one.",
        arguments={
            "status": {
                "type": "array",
                "items": {"type": "string", "enum": [status.value for status in JobStatus]},
                "description": "Only jobs with one of these.",
            },
            "agent": _AGENT,
            "agent_session": _AGENT_SESSION,
            "after": described(TEXT, "The next_after of the page before."),
            "limit": described(INTEGER, "How many at most. Default: 20."),
        },
        result=record({"jobs": list_of(JOB), "next_after": TEXT_OR_NULL}),
        run=verbs.list_jobs,
        is_read_only=True,
    ),
    Tool(
        name="wait",
        description="Wait until a job has ended. ended is false if it has not in time: call it again.",
        arguments={"job_id": _JOB_ID, "wait_sec": _wait_sec(verbs.DEFAULT_ASK_SEC, "for its end")},
        required=("job_id",),
        result=record({"ended": FLAG, "job": JOB}),
        run=verbs.wait,
        is_read_only=True,
    ),
    Tool(
        name="events",
        description="List the events of a job, in order.",
        arguments={
            "job_id": _JOB_ID,
            "after": described(INTEGER, "Only those with a greater seq: the next_after of the page before."),
            "limit": described(INTEGER, "How many at most. Default: 100."),
        },
        required=("job_id",),
        result=record({"events": list_of(EVENT), "next_after": INTEGER_OR_NULL}),
        run=verbs.events,
        is_read_only=True,
    ),
)
"""All tools, in the order in which they are listed."""

_OF_AN_ATTEMPT = ("publish", "ask", "show", "events")
"""The tools of an attempt that `jobdb work` runs. It ends the job by its exit code, and the worker renews the lease."""

_OF_A_CLAIM = ("renew", "release", "complete", "fail")
"""The further tools of the holder of a claim."""

_INSTRUCTIONS = """\
jobdb is a job registry. To work: claim a job, do what its prompt says, publish progress, renew the claim before its
lease ends, and finish with complete or fail. Pass job_id and attempt each time. To delegate: register a job, wait for
it, and read its events; answer its questions only as you were told to. To be allowed something: ask, and go on only if
allowed is true. A refused call says why; when a claim is stale, stop the work."""

_OWN_INSTRUCTIONS = """\
These tools are about your own job in the job registry jobdb: show returns it, publish reports progress, ask asks a
person. Go on with what you asked for only if allowed is true. {end}"""
_ENDS_BY_EXIT = "Your process ends the job: when it exits, the job is completed or has failed."
_ENDS_BY_TOOL = "Renew the claim before its lease ends, and finish with complete or fail."


def offered_tools(own: OwnJob | None) -> Mapping[str, Tool]:
    """Return the tools of a server by name: all, or those for the job that it belongs to."""
    if own is None:
        return {tool.name: tool for tool in TOOLS}
    names = _OF_AN_ATTEMPT if own.is_run else (*_OF_AN_ATTEMPT, *_OF_A_CLAIM)
    fixed = {"job_id": own.job_id, "attempt": own.attempt}
    return {
        tool.name: tool.with_fixed(**{name: value for name, value in fixed.items() if name in tool.arguments})
        for tool in TOOLS
        if tool.name in names
    }


def instructions(own: OwnJob | None) -> str:
    """Return what the model is told about the server."""
    if own is None:
        return _INSTRUCTIONS
    return _OWN_INSTRUCTIONS.format(end=_ENDS_BY_EXIT if own.is_run else _ENDS_BY_TOOL)
