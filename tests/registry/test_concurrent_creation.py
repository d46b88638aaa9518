"""Test several processes that create the same database at the same moment."""

import multiprocessing
from pathlib import Path
from typing import Any

from jobdb import Registry

_spawn = multiprocessing.get_context("spawn")


def _use(url: str, rounds: int, start: Any, found: Any) -> None:
    for number in range(rounds):
        start.wait(60)
        try:
            with Registry.open(url.format(number), create=True) as registry:
                found.put(registry.register(agent="a", prompt="p").job_id)
        except Exception as error:
            found.put(f"{type(error).__name__}: {error}")


def test_concurrent_first_users_find_the_database_created(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    users, rounds = 3, 8
    start, found = _spawn.Barrier(users), _spawn.Queue()
    url = f"sqlite:///{tmp_path}/private/{{}}.db"
    processes = [_spawn.Process(target=_use, args=(url, rounds, start, found)) for _ in range(users)]
    for user in processes:
        user.start()
    answers = [found.get(timeout=120) for _ in range(users * rounds)]
    for user in processes:
        user.join(60)
    assert [answer for answer in answers if ":" in answer] == []
    for number in range(rounds):
        with Registry.open(url.format(number)) as registry:
            assert len(registry.jobs()) == users
