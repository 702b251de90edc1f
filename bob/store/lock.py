"""Lock of an output folder: lock files admit one command at a time.

A command writes its own lock file and then lists all; it goes on only if no other command is alive. The second command
sees the first on any store that lists new files at once: local disks, S3, GCS. Two that see each other both withdraw
and try again after a pause. A lock file whose process has ended is deleted, so a killed command can be restarted at
once.
"""

import contextlib
import datetime
import json
import os
import platform
import random
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bob.store import Store, user

__all__ = ["LockFile", "lock"]

_FOLDER = "claims"
_TRIES = 6  # the first, and five after withdrawing
_PAUSE = (0.2, 1.0)  # seconds


_ENDS = signal.SIGUSR2
"""Signal that ends a command as Ctrl-C does. Not SIGINT, which background jobs of a shell ignore."""


@dataclass(frozen=True, kw_only=True)
class LockFile:
    """Content of a lock file: a JSON file in the folder `claims/`."""

    host: str
    machine: str
    """Identity of the running system: two machines, or containers, may share a name."""
    pid: int
    born: int
    """Start of the process, in clock ticks since the machine's start; 0 if unknown."""
    user: str
    started: str
    command: str
    entered: bool = False
    """False while the command checks that no other is alive."""
    beat: int = 0
    """Number of writes of the file: the sign of life."""

    def __str__(self) -> str:
        return f"`{self.command}` (host {self.host}, process {self.pid}, user {self.user}, since {self.started})"


@contextlib.contextmanager
def lock(artefacts: Store, command: str, *, beat_every: float = 10.0, watch_for: float = 25.0) -> Iterator[None]:
    """Locks an output while the block runs.

    Args:
        artefacts: the output.
        command: command line to show to a command that is refused.
        beat_every: seconds between two signs of life, for commands on other machines.
        watch_for: seconds without a sign of life after which another machine's lock is taken over; more than twice
            `beat_every`.

    Raises:
        ValueError: if another command uses the output, or if another machine took over this command's lock, which
            ends the block as Ctrl-C does.
    """
    artefacts.require_writable()
    own, stop = _OwnLock(artefacts, command), threading.Event()
    thread = threading.Thread(target=own.keep_beating, args=(stop, beat_every), daemon=True)
    before = signal.signal(_ENDS, signal.default_int_handler)
    try:
        own.enter(watch_for)
        thread.start()
        yield
    except KeyboardInterrupt:
        if own.lost:
            raise ValueError(
                f"{artefacts.place()} was taken over by another machine, which saw no sign of life of this command for"
                " a while: all that is complete is kept, and the same command resumes when the other is done"
            ) from None
        raise
    finally:
        stop.set()
        if thread.is_alive():
            thread.join()
        own.withdraw()
        signal.signal(_ENDS, before)


class _OwnLock:
    """This command's lock file, and its view of the others."""

    def __init__(self, artefacts: Store, command: str) -> None:
        self._store, self._name = artefacts, f"{uuid.uuid4().hex}.json"
        self.lost = False
        self._taken: set[str] = set()
        """The lock files that this command has taken over."""
        self._file = LockFile(
            host=platform.node(),
            machine=_machine(),
            pid=os.getpid(),
            born=_start_ticks(os.getpid()) or 0,
            user=user(),
            started=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
            command=command,
        )

    def enter(self, watch_for: float) -> None:
        """Returns when this is the only command; raises ValueError if it is not."""
        for _ in range(_TRIES):
            self._write()
            other = self._living(watch_for)
            if other is None and self._exists():
                self._write(entered=True)
                return
            self.withdraw()
            if other is not None and other.entered:
                break
            time.sleep(random.uniform(*_PAUSE))  # changes no result
        raise ValueError(
            f"{self._store.place()} is in use by {other or 'commands that start just now'}: wait until it is done, stop"
            " it, or choose another --out"
        )

    def withdraw(self) -> None:
        """Deletes the lock file; if that fails, the next command takes it over."""
        with contextlib.suppress(OSError):
            self._store.delete(f"{_FOLDER}/{self._name}")

    def keep_beating(self, stop: threading.Event, every: float) -> None:
        """Writes signs of life until `stop` is set; ends the command if its lock was taken over."""
        while not stop.wait(every):
            with contextlib.suppress(OSError, ValueError):  # a lost connection may come back
                if not self._exists() or self._is_overtaken():
                    self.lost = True
                    main = threading.main_thread().ident
                    assert main is not None
                    signal.pthread_kill(main, _ENDS)  # also interrupts a blocking call
                    return
                self._write(entered=True)

    def _exists(self) -> bool:
        return self._store.exists(f"{_FOLDER}/{self._name}")

    def _is_overtaken(self) -> bool:
        """Whether another command is at work although this command's lock file exists.

        A command that was suspended just before a sign of life writes its deleted lock file anew when it wakes.
        """
        others = self._others()
        for name in self._taken & others.keys():
            self._store.delete(f"{_FOLDER}/{name}")
        return any(other.entered for name, other in others.items() if name not in self._taken)

    def _write(self, *, entered: bool = False) -> None:
        self._file = replace(self._file, entered=entered, beat=self._file.beat + 1)
        self._store.write_json(f"{_FOLDER}/{self._name}", asdict(self._file))

    def _others(self) -> dict[str, LockFile]:
        """Returns name -> lock file of other commands; deletes those of ended processes of this machine."""
        others = {}
        for name in self._store.names(_FOLDER):
            if name != self._name and (other := self._read(name)) is not None:
                if other.machine == self._file.machine and not _is_alive(other):
                    self._store.delete(f"{_FOLDER}/{name}")
                else:
                    others[name] = other
        return others

    def _read(self, name: str) -> LockFile | None:
        try:
            return LockFile(**json.loads(self._store.read(f"{_FOLDER}/{name}")))
        except FileNotFoundError:  # withdrawn meanwhile
            return None
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{self._store.place(f'{_FOLDER}/{name}')} is no lock file of this version of bob: delete it if no"
                " command is at work there"
            ) from error

    def _living(self, watch_for: float) -> LockFile | None:
        """Returns another living command or None; watches those of other machines for signs of life."""
        first = self._others()
        for other in first.values():
            if other.machine == self._file.machine:
                return other
        if not first:
            return None
        others = ", ".join(map(str, first.values()))
        print(
            f"{self._store.place()} is locked by {others}, on another machine: watching for {watch_for:g} s whether it"
            " is still at work",
            flush=True,
        )
        end = time.monotonic() + watch_for
        while first and time.monotonic() < end:
            time.sleep(watch_for / 10)
            self._write()  # a newcomer on another machine watches this command
            now = self._others()
            for name, other in now.items():
                if name not in first or other.beat != first[name].beat:
                    return other
            first = {name: first[name] for name in now}
        for name in first:
            self._taken.add(name)
            self._store.delete(f"{_FOLDER}/{name}")
        return None


def _machine() -> str:
    """Returns the identity of the running system and of its process-id namespace."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):  # Linux only; elsewhere the host's name alone
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _is_alive(other: LockFile) -> bool:
    born = _start_ticks(other.pid)
    return born is not None and (not born or not other.born or born == other.born)


def _start_ticks(pid: int) -> int | None:
    """Returns a process's start, in clock ticks since the machine's; 0 if unknown, None without such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:  # another user's
        pass
    try:
        # Fields of proc(5) after the name, which is in brackets and may contain any character: state, ..., start (22).
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
