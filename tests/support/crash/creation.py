"""Power cuts while a database and its key are created: what was acknowledged is there, the rest can be redone."""

from __future__ import annotations

from pathlib import Path
from random import Random

from jobdb.crypto.vault import Vault
from jobdb.errors import JobdbError
from tests.support.ack_log import AckLog, read_ack_log
from tests.support.crash.scenarios import Report
from tests.support.lossyfs.mount import LossyMount
from tests.support.processes import WorkerPool
from tests.support.registries import open_registry


def _vault(home: Path) -> Vault:
    return Vault.open(env={"XDG_CONFIG_HOME": str(home)})


def make_and_register(folder: Path, ack_log_path: Path) -> None:
    """Create folder, database and key, and register jobs, as a first user does."""
    ack_log = AckLog(ack_log_path)
    try:
        with open_registry(folder / "new" / "jobs.db", create=True, vault=_vault(folder / "config")) as registry:
            for _ in range(5):
                job = registry.register(agent="first", prompt="one")
                ack_log.write(job=job.job_id, token=registry.tokens.show(job.job_id))
    except JobdbError as error:
        ack_log.write(stopped=type(error).__name__, why=str(error))


def cut_power_during_creation(mount: LossyMount, folder: Path, seed: int, *, cuts: int) -> Report:
    """Cut the power while two processes create the same database.

    Args:
        mount: where database and key lie.
        folder: for the acknowledgement logs.
        seed: of the cut points.
        cuts: how many.
    """
    random, report = Random(seed), Report("power cuts while the database and the key are made")
    for number in range(cuts):
        report.events += 1
        home, ack_log = mount.folder / f"home{number}", folder / f"first{number}.acks"
        with WorkerPool() as pool:
            mount.arm("change", "*", random.randrange(random.choice((130, 800))))
            for _ in range(2):
                pool.start(make_and_register, home, ack_log)
            report.points_hit[_wait_cut(mount, pool)] += 1
        mount.boot()
        acknowledged = [entry for entry in read_ack_log(ack_log) if "job" in entry]
        report.answered += len(acknowledged)
        report.violations += [
            f"{entry['stopped']}: {entry['why']}"
            for entry in read_ack_log(ack_log)
            if entry.get("stopped") in ("KeyProblem", "NotAJobdbDatabase") and "connect" not in entry["why"]
        ]
        try:
            with open_registry(home / "new" / "jobs.db", create=True, vault=_vault(home / "config")) as registry:
                for entry in acknowledged:
                    if registry.tokens.show(entry["job"]) != entry["token"]:
                        report.violations.append(f"I8: the token of {entry['job']} is another one")
                registry.register(agent="second", prompt="try")
        except JobdbError as error:
            report.violations.append(f"I8: after a cut: {type(error).__name__}: {error}")
    return report


def _wait_cut(mount: LossyMount, pool: WorkerPool) -> str:
    """Return where the armed cut came; if all are done before it, cut the power then."""
    for _ in range(100):
        try:
            return str(mount.wait_cut(0.1)["at"])
        except TimeoutError:
            if not any(worker.is_alive() for worker in pool.processes):
                break
    return str(mount.cut()["at"])
