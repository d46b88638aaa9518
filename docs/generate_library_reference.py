"""Write docs/reference/library.md from the docstrings of the public objects.

Run ``python docs/generate_library_reference.py`` after a change of them; a test compares the page with what it would
write.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import html
import inspect
import re
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import jobdb
from jobdb import AsyncRegistry, Registry, errors
from jobdb.model import literals
from jobdb.registry.async_follower import AsyncFollower
from jobdb.registry.async_working import AsyncWork, AsyncWorking
from jobdb.registry.follower import Follower
from jobdb.registry.tokens import Tokens

PAGE = Path(__file__).parent / "reference" / "library.md"
_WIDTH = 100
_SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Attributes):$")
_WAITING = re.compile(r"^Waiting\[(.*)\]$")
_PAGES = re.compile(r"^Iterator\[Page\[(\w+), \w+\]\]$")
_ITEM = re.compile(r"^    (\*{0,2}\w[\w, ]*): (.*)$")

HEAD = """\
# The library

<!-- Made by docs/generate_library_reference.py from the docstrings. Change them there. -->

```python
from jobdb import Registry

with Registry.open("sqlite:///.jobdb/jobs.db", create=True) as registry:
    job = registry.register(agent="codex", prompt="sort ten problems")
    claim = registry.claim(agent="codex", worker="host1:4711", lease_sec=300)
    if claim is not None:  # None: no job is ready
        registry.publish(claim.job_id, "progress", detail="step 1", attempt=claim.attempt)
        registry.complete(claim.job_id, attempt=claim.attempt)
    print(registry.wait(job.job_id, timeout_sec=60))
```

The library is synchronous; [AsyncRegistry](#asyncregistry) has the same verbs for asyncio. A registry can be shared
between threads, not across `fork`. What is not named here is not public. With `jobdb -vv`, or the logger `jobdb.verbs`
at `DEBUG` before a registry is opened, each verb and wait is logged with its duration; the log records carry it as
attributes too (`verb`, `outcome`, `duration_ms`, `waited_ms`, …).

Each example below runs as it stands, with an open `registry`, a `folder`, `this_worker` (a `WorkerInfo`), and the names
of `jobdb`.
"""

OPENING = """\
import asyncio

from jobdb import AsyncRegistry


async def main() -> None:
    async with AsyncRegistry.open("sqlite:///.jobdb/jobs.db", create=True) as registry:
        print(await registry.count_by_status())

    registry = await AsyncRegistry.open("sqlite:///.jobdb/jobs.db")
    await registry.aclose()


asyncio.run(main())
"""

ASYNC_VERBS = """\
Its verbs, and those of `registry.tokens`, have the arguments, results and errors of [Registry](#registry):

| verbs | use |
| --- | --- |
"""


def page() -> str:
    """Return the whole page."""
    parts = [HEAD, *_class(Registry, "Registry"), *_class(Tokens, "registry.tokens"), *_class(Follower, "Follower")]
    parts += _asyncio()
    parts.append("## What the verbs take and return\n")
    parts.append(
        "Frozen dataclasses. Two are equal if all of their fields are; all are hashable, by the fields that identify "
        "them. `as_dict()` returns what the command line prints with `--json`.\n"
    )
    for name in jobdb.__all__:
        found = getattr(jobdb, name)
        if inspect.isclass(found) and found.__module__.startswith("jobdb.model"):
            parts += _object(found)
    parts += _literals()
    parts.append("## Vault\n")
    parts += _text(jobdb.Vault)
    parts += _methods(jobdb.Vault, "Vault", level=3)
    parts.append("## Errors\n")
    parts += _errors()
    return "\n".join(parts)


def _class(found: type, shown: str) -> Iterator[str]:
    yield f"## {shown}\n"
    yield from _text(found)
    yield from _methods(found, shown.lower() if found is Registry else shown, level=3)


def _asyncio() -> Iterator[str]:
    """Yield the asyncio face: what it has of its own, and how its verbs are used."""
    yield "## AsyncRegistry\n"
    yield from _text(AsyncRegistry)
    verbs = [name for name, _verb in _members(Registry) if not name.startswith("_") and name in vars(AsyncRegistry)]
    awaited = [name for name in verbs if inspect.iscoroutinefunction(vars(AsyncRegistry)[name])]
    rows = [
        ("`await`", awaited),
        ("`async for`", [name for name in verbs if name not in awaited and name not in ("open", "working")]),
        ("`async with`", ["working"]),
        ("`await`, of `registry.tokens`", [name for name in vars(Tokens) if not name.startswith("_")]),
    ]
    yield ASYNC_VERBS + "".join(f"| {', '.join(f'`{name}`' for name in names)} | {use} |\n" for use, names in rows)
    yield "### AsyncRegistry.open\n"
    yield "The arguments and errors are those of [Registry.open](#registryopen). Use it in one of two ways:\n"
    yield f"```python\n{OPENING}```\n"
    yield "### AsyncRegistry.aclose\n"
    yield _signature("aclose", AsyncRegistry.aclose)
    yield from _text(AsyncRegistry.aclose)
    yield from _class(AsyncFollower, "AsyncFollower")
    yield from _class(AsyncWorking, "AsyncWorking")
    yield from _class(AsyncWork, "AsyncWork")


def _methods(found: type, shown: str, *, level: int) -> Iterator[str]:
    for name, member in _members(found):
        function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            yield f"{'#' * level} {shown}.{name}\n"
            yield from _text(member)
        elif inspect.isfunction(function):
            owner = found.__name__ if isinstance(member, classmethod) else shown
            yield f"{'#' * level} {owner}.{name}\n"
            yield _signature(name, function)
            yield from _text(function)


def _members(found: type) -> Iterator[tuple[str, Any]]:
    """Yield the members of a class, then those of its bases."""
    for base in found.__mro__[:-1]:
        yield from vars(base).items()


def _signature(name: str, function: Any) -> str:
    signature = inspect.signature(function)
    given, starred = [], False
    for one in signature.parameters.values():
        if one.name in ("self", "cls"):
            continue
        if one.kind is one.KEYWORD_ONLY and not starred:
            given.append("*")
        starred = starred or one.kind in (one.KEYWORD_ONLY, one.VAR_POSITIONAL)
        given.append(_parameter(one))
    # A verb that waits is written as a generator, and one that iterates as one of pages: see jobdb/registry/waiting.py.
    result = _PAGES.sub(r"Iterator[\1]", _WAITING.sub(r"\1", signature.return_annotation))
    line = f"{name}({', '.join(given)}) -> {result}"
    if len(line) > _WIDTH:
        line = f"{name}(\n" + "".join(f"    {one},\n" for one in given) + f") -> {result}"
    return f"```text\n{line}\n```\n"


def _parameter(one: inspect.Parameter) -> str:
    mark = "*" if one.kind is one.VAR_POSITIONAL else "**" if one.kind is one.VAR_KEYWORD else ""
    shown = f"{mark}{one.name}: {one.annotation}"
    if one.default is not one.empty:
        shown += f" = {one.default.__name__ if inspect.isfunction(one.default) else repr(one.default)}"
    return shown


def _object(found: Any) -> Iterator[str]:
    yield f"### {found.__name__}\n"
    yield from _text(found)
    if issubclass(found, enum.Enum):
        yield "Values: " + ", ".join(f"`{one.value}`" for one in found) + "\n"
    elif dataclasses.is_dataclass(found):
        documented = found.__doc__ or ""
        rows = [f"- `{one.name}`: `{one.type}`" for one in dataclasses.fields(found)]
        if "Attributes:" not in documented:
            yield "\n".join(rows) + "\n"
    for name, member in vars(found).items():
        if isinstance(member, property) and member.__doc__:
            yield f"`.{name}`: {_inline(inspect.cleandoc(member.__doc__))}\n"


def _literals() -> Iterator[str]:
    """Yield the types of the arguments that take one of a few names."""
    yield "## Types of names\n"
    yield "For annotations. mypy reports a name that is none of them.\n"
    for name, meaning in literal_docstrings().items():
        if name in jobdb.__all__:
            yield f"### {name}\n"
            yield f"{_inline(meaning)}\n"
            yield "Values: " + ", ".join(f"`{value}`" for value in get_args(getattr(literals, name))) + "\n"


def literal_docstrings() -> dict[str, str]:
    """Return the text below each name in jobdb/model/literals.py."""
    body = ast.parse(inspect.getsource(literals)).body
    return {
        statement.targets[0].id: inspect.cleandoc(str(below.value.value))
        for statement, below in pairwise(body)
        if isinstance(statement, ast.Assign)
        and isinstance(statement.targets[0], ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
    }


def _errors() -> Iterator[str]:
    tree = inspect.cleandoc(errors.__doc__ or "").split("\n\n")
    yield tree[0] + "\n"
    yield "```text\n" + inspect.cleandoc("\n" + tree[1]) + "\n```\n"
    yield tree[2].replace("\n", " ") + "\n"
    rows = []
    for name in jobdb.__all__:
        found = getattr(jobdb, name)
        if inspect.isclass(found) and issubclass(found, errors.JobdbError):
            rows.append(
                f"| `{name}` | {found.exit_code} | {_inline((found.__doc__ or '').split(chr(10) + chr(10))[0])} |"
            )
    yield "\n".join(["| error | exit code | when |", "| --- | --- | --- |", *rows, ""])


def _text(found: Any) -> Iterator[str]:
    """Yield a docstring as Markdown: its paragraphs, its sections as lists, its example as code."""
    section: str | None = None
    items: list[str] = []
    paragraph: list[str] = []
    text, _, example = inspect.cleandoc(found.__doc__ or "").partition("\nExample:\n")
    for line in [*text.splitlines(), ""]:
        heading = _SECTION.match(line)
        item = _ITEM.match(line) if section else None
        if heading:
            section = heading[1]
            yield f"**{section}**\n"
        elif section and item:
            items.append(f"- `{item[1]}`: {_inline(item[2])}")
        elif section and line.startswith("    "):
            if items and line.startswith("        "):
                items[-1] += " " + _inline(line.strip())
            else:
                items.append(f"- {_inline(line.strip())}" if not items else items.pop() + " " + _inline(line.strip()))
        elif line:
            paragraph.append(_inline(line))
        else:
            if items:
                yield "\n".join(items) + "\n"
            if paragraph:
                yield "\n".join(paragraph) + "\n"
            items, paragraph, section = [], [], None
    if example:
        yield f"```pycon\n{textwrap.dedent(example).rstrip()}\n```\n"


def _inline(text: str) -> str:
    """Return reStructuredText's marks as Markdown's; outside of code nothing may look like a tag."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", " ".join(text.split())).replace("``", "`")
    parts = text.split("`")
    parts[::2] = [html.escape(part, quote=False) for part in parts[::2]]
    return "`".join(parts).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
