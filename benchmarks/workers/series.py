"""Take the measurements of the workers: jobs per second in interleaved rounds, idling, the delay of a start.

Called by __main__.py and the whole benchmark. In each round all peers take a turn, each time with another one first.
Each run has a fresh copy of a queue that was filled once, and a process of its own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..latencies import spread
from . import tasks
from .peers import PEERS
from .peers.base import Place
from .processes import ProcessFailed, Started, call, channel
from .servers import Servers, reason_unavailable

_SLACK_SEC = 120.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The sizes of the measurements. ``jobs`` is the length of each queue, ``starts`` the number of delays."""

    name: str
    jobs: int
    rounds: int
    idle_sec: float
    settle_sec: float
    starts: int
    command_jobs: int
    command_rounds: int
    slots: int = 8


FULL = Plan("full", 2000, 5, 20.0, 2.0, 100, 200, 3)
QUICK = Plan("quick", 200, 2, 2.0, 2.0, 20, 24, 1)


def available(names: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Return the peers that can run here, and the reason for each that cannot."""
    usable, missing = [], {}
    for name in names:
        try:
            reason = reason_unavailable(PEERS[name].load().server)
        except ImportError as error:
            reason = f"not installed: {error}"
        if reason:
            missing[name] = reason
        else:
            usable.append(name)
    return usable, missing


class Series:
    """All measurements of the chosen peers, in a folder on the measured disk."""

    def __init__(self, names: list[str], plan: Plan, folder: Path, say: Callable[[str], None]) -> None:
        self._names = names
        self._plan = plan
        self._say = say
        self._servers = Servers(folder)
        self._failures: dict[str, str] = {}

    def _server(self, name: str) -> str:
        return PEERS[name].load().server

    def _filled(self, name: str, jobs: int) -> Place:
        place = self._servers.new_place(self._server(name))
        call(tasks.prepare, name, place, jobs, timeout_sec=600)
        self._servers.settle(place)
        return place

    def _guarded(self, name: str, measure: Callable[[], Any]) -> Any:
        """Return the measurement, or None if it failed: then the peer is not measured any further."""
        if name in self._failures:
            return None
        try:
            return measure()
        except ProcessFailed as failure:
            self._failures[name] = str(failure).splitlines()[-1]
            print(f"{name}: {failure}", file=sys.stderr)
            return None

    def _work_off(self, name: str, template: Place) -> dict[str, float]:
        server = self._server(name)
        place = self._filled(name, self._plan.jobs) if server == "redis" else self._servers.new_place(server, template)
        try:
            found: dict[str, float] = call(
                tasks.work_off, name, place, self._plan.jobs, self._plan.slots, self._servers.pid(server)
            )
            return found
        finally:
            self._servers.remove(place)

    def rates(self) -> dict[str, Any]:
        """Return jobs per second and CPU time per job of each peer, over the rounds."""
        templates: dict[str, Place] = {}
        for name in self._names:
            began = time.monotonic()
            template = self._guarded(name, lambda name=name: self._filled(name, self._plan.jobs))
            if template is not None:
                templates[name] = template
                self._say(f"filled the queue of {name}: {time.monotonic() - began:.1f} s")
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in templates}
        for number in range(self._plan.rounds):
            began = time.monotonic()
            turn = number % len(self._names)
            for name in self._names[turn:] + self._names[:turn]:
                if name in templates:
                    found = self._guarded(name, lambda name=name: self._work_off(name, templates[name]))
                    if found is not None:
                        runs[name].append(found)
            self._say(f"round {number + 1} of {self._plan.rounds}: {time.monotonic() - began:.1f} s")
        for template in templates.values():
            self._servers.remove(template)
        return {
            name: {
                "per_sec": spread([run["per_sec"] for run in found]),
                "cpu_us_each": spread([run["cpu_us_each"] for run in found]),
                "server_cpu_us_each": spread([run["server_cpu_us_each"] for run in found]),
                "rounds": found,
            }
            for name, found in runs.items()
            if found and name not in self._failures
        }

    def _idle(self, name: str) -> Any:
        plan, place = self._plan, self._filled(name, 0)
        try:
            return call(
                tasks.idle, name, place, plan.slots, plan.settle_sec, plan.idle_sec,
                self._servers.pid(self._server(name)), timeout_sec=plan.idle_sec + _SLACK_SEC,
            )  # fmt: skip
        finally:
            self._servers.remove(place)

    def _delays(self, name: str) -> Any:
        """Return the spread of the delays in ms from a registration's return to its handler's start."""
        plan, place = self._plan, self._filled(name, 0)
        ours, theirs = channel()
        taking = Started(tasks.take, name, place, plan.slots, plan.settle_sec, plan.starts + 1, theirs)
        try:
            if not ours.poll(_SLACK_SEC):
                raise ProcessFailed("the worker was not ready in time")
            added = call(tasks.produce, name, place, plan.starts + 1)
            started = taking.result(_SLACK_SEC)
        except BaseException:
            taking.end()
            raise
        finally:
            ours.close()
            self._servers.remove(place)
        # The first, a warm-up, is left out.
        taken = sorted((started[number] - added[number]) / 1e6 for number in range(1, plan.starts + 1))
        return spread(taken) | {"p99": taken[max(int(len(taken) * 0.99) - 1, 0)]}

    def waiting(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the idle shares of a processor and the delays of starts, of the peers whose waiting is measured."""
        idle, delays = {}, {}
        for name in self._names:
            if not PEERS[name].waits:
                continue
            began = time.monotonic()
            for results, measure in ((idle, self._idle), (delays, self._delays)):
                found = self._guarded(name, lambda name=name, measure=measure: measure(name))
                if found is not None:
                    results[name] = found
            self._say(f"idle and start of {name}: {time.monotonic() - began:.1f} s")
        return idle, delays

    def run(self) -> dict[str, Any]:
        """Take all measurements; afterwards the servers are stopped."""
        try:
            about = {name: call(tasks.describe, name, self._plan.slots) for name in self._names}
            rates = self.rates()
            idle, delays = self.waiting()
        finally:
            self._servers.stop()
        return {"peers": about, "rates": rates, "idle": idle, "start_ms": delays, "failures": self._failures}
