"""A worker that tests kill and stop: ``python -P -m tests.support.keeper_worker FOLDER [subreaper]``.

It is a child subreaper if told so. It reads a request per line, and answers each with a line of JSON:

    {"start": ARGV, …}       start an attempt of the job in FOLDER, with the further arguments of `Attempts.launch`;
                             with "line", wait until its channel had that line
    {"wait": NUMBER}         the report of the end of the attempt that was started as the NUMBERth, from 0
    {"orphans": null}        kill orphans; how many there were
    {"fork": null}           fork a child that only sleeps; its process id
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from jobdb.system.parent_control import set_child_subreaper
from jobdb.work.keeper.client import KeeperServer
from jobdb.work.keeper.messages import Ended, Started
from tests.support.keepers import Attempts, Conversation, begin
from tests.support.processes import LineProcess, module_environment, python_module

MODULE = "tests.support.keeper_worker"


class WorkerProcess:
    """The worker, as a test sees it.

    Args:
        attempts: the job's.
        subreaper: whether the worker is one.
    """

    def __init__(self, attempts: Attempts, *, subreaper: bool = True) -> None:
        words = ["subreaper"] if subreaper else []
        command = python_module(MODULE, attempts.folder, attempts.mark, *words)
        self._process = LineProcess(command, env=module_environment())
        self.pid = self._process.process.pid

    def start(self, *argv: object, **changes: Any) -> dict[str, int]:
        """Start an attempt; return the ids of its ``server``, ``keeper`` and ``agent``."""
        return dict(self._ask({"start": [str(word) for word in argv], **changes}))

    def wait(self, number: int = 0) -> dict[str, Any] | str:
        """Return the fields of an attempt's `Ended`, as far as JSON has them, or the text of `Lost`."""
        answer: dict[str, Any] | str = self._ask({"wait": number})
        return answer

    def kill_orphans(self) -> int:
        return int(self._ask({"orphans": None}))

    def fork(self) -> int:
        return int(self._ask({"fork": None}))

    def close(self) -> None:
        """End the worker, if it is still there."""
        self._process.process.kill()
        self._process.close()

    def _ask(self, request: dict[str, Any]) -> Any:
        return json.loads(self._process.ask(json.dumps(request)))


def main() -> None:
    attempts = Attempts(Path(sys.argv[1]), mark=sys.argv[2])
    if "subreaper" in sys.argv[3:]:
        set_child_subreaper()
    server = KeeperServer(use_cgroups=False)
    conversations: list[Conversation] = []
    known: list[int] = []
    for line in sys.stdin:
        request = json.loads(line)
        answer: Any
        if "start" in request:
            awaited = request.pop("line", None)
            conversation = begin(server, attempts.launch(*request.pop("start"), **request))
            conversations.append(conversation)
            started = conversation.wait_for(Started)
            if awaited is not None:
                conversation.wait_for_line(awaited.encode())
            answer = {"server": server.pid, "keeper": conversation.keeper.pid, "agent": started.pid}
        elif "wait" in request:
            conversation = conversations[request["wait"]]
            conversation.receive_until(lambda waited=conversation: waited.keeper.has_ended)
            last = conversation.messages[-1]
            answer = {"cause": last.cause, "exit_code": last.exit_code} if isinstance(last, Ended) else repr(last)
        elif "orphans" in request:
            answer = server.kill_orphans(known)
        else:
            answer = os.fork()
            if answer == 0:
                time.sleep(600)
            known.append(answer)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
