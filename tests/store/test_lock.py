"""The lock of an output folder between real processes: refusal, kills, races, and other machines."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bob.store import Store
from bob.store.lock import lock
from tests.paths import ROOT

COMMAND = """
import platform, sys, time
from bob.store.lock import lock
from bob.store import Store

root, host, beat = sys.argv[1:]
if host:
    platform.node = lambda: host
print("ready", flush=True)
while word := sys.stdin.readline().strip():
    start = time.monotonic()
    try:
        with lock(Store(root), f"bob run {word}", beat_every=float(beat)):
            print("in", time.monotonic() - start, flush=True)
            sys.stdin.readline()
        print("out", flush=True)
    except ValueError as error:
        print("refused:", error, flush=True)
"""
"""Locks at each line of its input, and unlocks at the next."""


class Command:
    """A process of its own, on this machine or on one of the name `host`."""

    def __init__(self, store: Store, *, host: str = "", beat_every: float = 10.0) -> None:
        words = [sys.executable, "-c", COMMAND, store.root, host, str(beat_every)]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        self.pid, self.kill, self.signal = self._process.pid, self._process.kill, self._process.send_signal
        assert self.says() == "ready"

    def told(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def says(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def enters(self) -> float:
        """How long it took to, in seconds."""
        word, _, seconds = self.says().partition(" ")
        assert word == "in"
        return float(seconds)

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: Any) -> None:
        self.kill()
        self._process.communicate()


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out"))


@pytest.fixture(params=["local", "s3"])
def store(request, local) -> Store:
    return local if request.param == "local" else Store(f"{request.getfixturevalue('bucket')}/{uuid.uuid4().hex}")


def test_a_second_command_is_refused_while_the_first_is_at_work(store):
    with Command(store) as first, Command(store) as second:
        first.told("first")
        first.enters()
        second.told("second")
        refusal = second.says()
        who = f"(host {os.uname().nodename}, process {first.pid}, user"
        assert refusal.startswith(f"refused: {store.place()} is in use by `bob run first` {who}")
        assert refusal.endswith("UTC): wait until it is done, stop it, or choose another --out")
        first.told("leave")
        assert first.says() == "out"
        second.told("second")
        second.enters()
        second.told("leave")
        assert second.says() == "out"
    assert store.names("claims") == []


def test_after_kill_9_the_same_command_goes_straight_on(store):
    with Command(store) as first, Command(store) as second:
        first.told("first")
        first.enters()
        first.kill()
        assert first.says() == ""  # dead, and not yet waited for, as under a parent that never does
        second.told("second")
        assert second.enters() < 10  # nobody watches, which takes 25 s
        assert len(store.names("claims")) == 1


def test_of_two_that_start_together_one_goes_on(local):
    with Command(local) as first, Command(local) as second:
        for _ in range(5):
            for command in (first, second):
                command.told("together")
            said = {command: command.says() for command in (first, second)}
            (winner,) = [command for command, words in said.items() if words.startswith("in ")]
            (loser,) = [command for command, words in said.items() if words.startswith("refused: ")]
            assert f"process {winner.pid}," in said[loser]
            winner.told("leave")
            assert winner.says() == "out"


def test_a_process_number_that_another_process_has_now_is_no_claim(local):
    with lock(local, "bob run"):
        (name,) = local.names("claims")
        held = json.loads(local.read(f"claims/{name}"))
    assert held["born"] > 0
    local.write_json(f"claims/{name}", {**held, "born": held["born"] - 1})
    with lock(local, "bob run"):
        assert name not in local.names("claims")


def test_a_failure_inside_leaves_no_claim(local):
    with pytest.raises(KeyError), lock(local, "bob run"):
        raise KeyError
    assert local.names("claims") == []


def test_a_file_that_is_no_claim_is_named(local):
    local.write("claims/odd.json", b"{}")
    with (
        pytest.raises(ValueError, match=r"out/claims/odd\.json is no lock file of this version of bob: delete it"),
        lock(local, "bob run"),
    ):
        pass
    assert local.names("claims") == ["odd.json"]


# -- other machines -----------------------------------------------------------------------------


@pytest.fixture
def elsewhere(local) -> Iterator[Command]:
    """A command at work on another machine."""
    with Command(local, host="elsewhere", beat_every=0.1) as command:
        command.told("there")
        command.enters()
        yield command


def test_a_command_on_another_machine_that_beats_is_at_work(local, elsewhere, capsys):
    with (
        pytest.raises(ValueError, match=r"in use by `bob run there` \(host elsewhere, "),
        lock(local, "bob run", watch_for=20.0),
    ):
        pass
    assert "host elsewhere" in capsys.readouterr().out
    elsewhere.told("leave")
    assert elsewhere.says() == "out"


def test_a_command_on_another_machine_that_was_killed_is_watched_and_taken_over(local, elsewhere, capsys):
    elsewhere.kill()
    assert elsewhere.says() == ""
    start = time.monotonic()
    with lock(local, "bob run", watch_for=1.0):
        assert time.monotonic() - start >= 1
        assert len(local.names("claims")) == 1
    assert "on another machine: watching for 1 s whether it is still at work" in capsys.readouterr().out


def test_a_command_that_woke_with_a_sign_of_life_ends_when_it_finds_another_at_work(local, elsewhere):
    """It slept between its look for its lock file and its next sign of life, which writes it anew."""
    elsewhere.signal(signal.SIGSTOP)
    (name,) = local.names("claims")
    held = local.read(f"claims/{name}")
    with lock(local, "bob run", watch_for=1.0, beat_every=0.2):
        local.write(f"claims/{name}", held)
        elsewhere.signal(signal.SIGCONT)
        assert elsewhere.says().startswith(f"refused: {local.root} was taken over by another machine")
        time.sleep(0.5)  # this one beats on
        assert len(local.names("claims")) == 1


def test_a_command_that_slept_ends_when_it_finds_itself_taken_over(local, elsewhere):
    elsewhere.signal(signal.SIGSTOP)
    with lock(local, "bob run", watch_for=1.0):
        elsewhere.signal(signal.SIGCONT)
        assert elsewhere.says().startswith(
            f"refused: {local.root} was taken over by another machine, which saw no sign"
        )
        assert len(local.names("claims")) == 1
