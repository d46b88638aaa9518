"""procrastinate's worker with concurrency 8, woken by PostgreSQL's notifications.

With threads=False the handler is a coroutine, the fastest way; with threads=True it is a plain function, which
procrastinate runs in a thread, as jobdb's Worker does.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from importlib.metadata import version
from typing import Any, ClassVar

import psycopg
from procrastinate import App, PsycopgConnector, SyncPsycopgConnector

from .base import Handle, PeerInfo, Place, WorkerPeer, ignore, prompt

_STOP_SEC = 60


class ProcrastinateWorker(WorkerPeer):
    server: ClassVar[str] = "postgresql"

    def __init__(self, place: Place, slots: int, *, threads: bool) -> None:
        super().__init__(place, slots)
        self._in_threads = threads
        self._task: Any = None
        self._app: App | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def info(self) -> PeerInfo:
        return PeerInfo(
            label="procrastinate worker" + (", handler in threads" if self._in_threads else ", coroutine handler"),
            engine="PostgreSQL",
            slots="tasks of one event loop" + (", the handler in a thread" if self._in_threads else ""),
            durability="full",
            syncs="one for the claim, one for the end; shared with those that coincide",
            ends_recorded=True,
            if_worker_dies="the job stays doing until a task of yours calls retry_job for the stalled",
            settings=f"concurrency={self.slots}, all else as shipped; up to {self.slots + 2} connections; fsync=on, "
            "synchronous_commit=on: PostgreSQL's own",
            version=f"procrastinate {version('procrastinate')}",
        )

    def _make_app(self, connector: Any, handle: Handle) -> App:
        app = App(connector=connector)
        if self._in_threads:

            @app.task(name="handle")
            def handle_in_thread(number: int, text: str) -> None:
                handle(number)

            self._task = handle_in_thread
        else:

            @app.task(name="handle")
            async def handle_in_loop(number: int, text: str) -> None:
                handle(number)

            self._task = handle_in_loop
        return app

    def prepare(self, jobs: int) -> None:
        self.open_producer(create=True)
        for first in range(0, jobs, 500):
            numbers = range(first, min(first + 500, jobs))
            self._task.batch_defer(*({"number": number, "text": prompt(number)} for number in numbers))
        self.close_producer()

    async def _work(self, handle: Handle, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        connector = PsycopgConnector(conninfo=self.place.url, min_size=1, max_size=self.slots + 2)
        app = self._make_app(connector, handle)
        async with app.open_async():
            self._running = asyncio.create_task(
                app.run_worker_async(concurrency=self.slots, install_signal_handlers=False)
            )
            ready.set()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running

    def _run(self, handle: Handle, ready: threading.Event) -> None:
        try:
            asyncio.run(self._work(handle, ready))
        except BaseException as error:
            self._error = error
            ready.set()

    def start(self, handle: Handle) -> None:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(handle, ready), daemon=True)
        self._thread.start()
        ready.wait()

    def check(self) -> None:
        if self._error is not None:
            raise self._error
        if self._running is None or self._running.done():
            raise AssertionError("the worker has ended")

    def stop(self) -> None:
        self.check()
        assert self._loop is not None
        assert self._running is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._running.cancel)
        self._thread.join(_STOP_SEC)
        if self._error is not None:
            raise self._error

    def ended(self) -> int:
        with psycopg.connect(self.place.url) as db:
            found = db.execute("SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'").fetchone()
        assert found is not None
        return int(found[0])

    def open_producer(self, create: bool = False) -> None:
        self._app = self._make_app(SyncPsycopgConnector(conninfo=self.place.url), ignore)
        self._app.open()
        if create:
            self._app.schema_manager.apply_schema()

    def add(self, number: int) -> None:
        self._task.defer(number=number, text=prompt(number))

    def close_producer(self) -> None:
        assert self._app is not None
        self._app.close()
