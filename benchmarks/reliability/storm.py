"""Kill what a job is made of, at random, and start it again until it is done.

A job is one command. What it consists of: the driver (its own process), the actors that do the work, the raylet of
each node, and a node as a whole. It runs on a Ray of its own (`OwnRay`: one node, whose end is the driver's), or on a
cluster of several nodes beside the driver (`benchmarks.reliability.nodes`).
"""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Protocol

import numpy as np
import psutil

ACTOR = "MapBatches"  # in the name that Ray gives an actor's process
RAYLET = "raylet"  # a node's own process
KINDS = {"actor": 4, "driver": 2, "raylet": 2, "node": 2}  # kind of victim -> how often, in relation
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
LONGEST_WAIT_S = 6.0  # from one kill to the next
HANG_S = 300.0  # without an end or a kill: the job hangs
MAX_FAILED = 4
POLL_S = 0.05


class Home(Protocol):
    """Where a job runs."""

    name: str
    """In the table."""

    def environment(self) -> dict[str, str]:
        """Return what the job's environment has besides this process's."""
        ...

    def nodes(self, driver: psutil.Process) -> list[list[psutil.Process]]:
        """List the processes of each node that may be killed, its raylet first; none that has not started yet."""
        ...

    def mend(self) -> None:
        """Bring back what was killed."""
        ...


class OwnRay:
    """The job starts Ray for itself: one node, which ends with the driver and the driver with it."""

    name = "a Ray of its own"

    def environment(self) -> dict[str, str]:
        """Return nothing: the job finds no cluster."""
        return {}

    def nodes(self, driver: psutil.Process) -> list[list[psutil.Process]]:
        """Return the driver's one node: all that it has started."""
        below = [process for process in driver.children(recursive=True) if _lives(process)]
        raylets = [process for process in below if process.name() == RAYLET]
        return [[raylet, *(process for process in below if process != raylet)] for raylet in raylets]

    def mend(self) -> None:
        """Do nothing: the next driver starts another Ray."""


@dataclass(kw_only=True)
class Storm:
    """What happened until a job was done."""

    starts: int = 0
    """How often the command was started."""
    kills: list[tuple[str, str]] = field(default_factory=list)
    """Kind of victim and signal of each kill."""
    failed: int = 0
    """Starts that failed though nothing was killed, as where Ray is not up within its 30 s on a busy machine."""
    seconds: float = 0.0
    """From the first start to the end."""


class HangError(RuntimeError):
    """A job neither ends nor goes on."""


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """The next kill."""

    kind: str
    how: signal.Signals
    wait_s: float


class Chaos:
    """Choose victims, signals and moments by chance."""

    def __init__(self, seed: int, max_kills: int) -> None:
        """Start at `seed`; after `max_kills` the job is left alone."""
        self._chance, self._max_kills = np.random.default_rng(seed), max_kills
        self.done = Storm()

    def run(self, command: Sequence[str], home: Home) -> Storm:
        """Run a command under kills until it ends well; again and again, as it is.

        Raises:
            HangError: it neither ends nor is killed for `HANG_S`.
            RuntimeError: it fails `MAX_FAILED` times though nothing was killed.
        """
        started_s, status = time.monotonic(), None
        while status != 0:
            self.done.starts += 1
            before = len(self.done.kills)
            with tempfile.TemporaryFile("w+") as log:
                status = self._start(command, home, log)
                self.done.failed += status != 0 and len(self.done.kills) == before
                if self.done.failed == MAX_FAILED:
                    raise RuntimeError(f"{' '.join(command)} failed though nothing was killed: {_said(log)}")
        self.done.seconds = time.monotonic() - started_s
        return self.done

    def _start(self, command: Sequence[str], home: Home, log: IO[str]) -> int:
        """Run the command once, killing now and then; return its exit status."""
        job = subprocess.Popen(command, env=os.environ | home.environment(), stdout=log, stderr=log)
        driver, last_s, plan = psutil.Process(job.pid), time.monotonic(), self._plan()
        try:
            while job.poll() is None:
                home.mend()
                if time.monotonic() - last_s > plan.wait_s and self._kill(plan, driver, home):
                    last_s, plan = time.monotonic(), self._plan()
                if time.monotonic() - last_s > HANG_S:
                    raise HangError(f"{' '.join(command)} hangs after {self.done.kills[-3:]}: {_said(log)}")
                time.sleep(POLL_S)
        finally:
            _end(job, driver)
        return job.returncode

    def _plan(self) -> _Plan:
        shares = np.array(list(KINDS.values())) / sum(KINDS.values())
        kind = list(KINDS)[self._chance.choice(len(KINDS), p=shares)]
        how = SIGNALS[self._chance.integers(len(SIGNALS))]
        return _Plan(kind=kind, how=how, wait_s=self._chance.uniform(0, LONGEST_WAIT_S))

    def _kill(self, plan: _Plan, driver: psutil.Process, home: Home) -> bool:
        """Kill as planned. Returns: False where there is nothing to kill, or there were enough kills."""
        victims = _victims(driver, home, plan.kind) if len(self.done.kills) < self._max_kills else []
        if victims:
            _send(victims, plan.how)
            self.done.kills.append((plan.kind, plan.how.name))
        return bool(victims)


def _victims(driver: psutil.Process, home: Home, kind: str) -> list[psutil.Process]:
    try:
        nodes = [node for node in home.nodes(driver) if any(map(_is_actor, node))]
        if not nodes:
            return []
        actors = [one for one in nodes[0] if _is_actor(one)]
        return {"driver": [driver], "actor": actors[:1], "raylet": nodes[0][:1], "node": nodes[0]}[kind]
    except psutil.NoSuchProcess:  # it ended just now
        return []


def _lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _is_actor(process: psutil.Process) -> bool:
    return _lives(process) and ACTOR in " ".join(process.cmdline())


def _send(processes: Sequence[psutil.Process], how: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # it ended with another one
            process.send_signal(how)


def _end(job: subprocess.Popen, driver: psutil.Process) -> None:
    """See to it that nothing of a command is left that would go on."""
    if job.poll() is None:
        _send([*driver.children(recursive=True), driver], signal.SIGKILL)
        job.wait()


def _said(log: IO[str]) -> str:
    log.seek(0)
    return log.read()[-3000:]
