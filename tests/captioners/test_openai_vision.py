"""The captioner `openai_vision` against a local server that speaks OpenAI's protocol."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import pytest
from PIL import Image

from bob import captioners
from bob.captioners.openai_vision import ServerError, named
from bob.datasets import load
from bob.steps import caption
from bob.steps.recognise import RecogniseStep
from tests import tiny

KEY = "sk-very-secret-0123456789"
Reply = tuple[int, dict[str, Any], dict[str, str]]


def said(text: str | None) -> Reply:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return 200, {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}, {}


def fault(status: int, message: str) -> Reply:
    return status, {"error": {"message": message, "type": "x"}}, {"retry-after-ms": "1"}


class Server:
    """Keeps what it was asked; `reply` makes of a request what it answers."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.reply: Callable[[dict[str, Any]], Reply] = lambda _: said("a clear sky")
        self._lock = Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    outer.asked.append(body)
                    outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                    status, content, headers = outer.reply(body)
                data = json.dumps(content).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Type": "application/json"}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server()
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{made.port}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    yield made
    made.close()


def question(body: dict[str, Any]) -> str:
    return body["messages"][0]["content"][1]["text"]


def picture(body: dict[str, Any]) -> Image.Image:
    head, _, data = body["messages"][0]["content"][0]["image_url"]["url"].partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_each_picture_gets_both_questions_and_its_own_answers(server: Server) -> None:
    def reply(body: dict[str, Any]) -> Reply:
        about = "background" if "background" in question(body) else "pose"
        return said(f"{about} {picture(body).size}")

    server.reply = reply
    model = captioners.load("openai_vision:some/model")
    pictures = [Image.new("RGB", (20 + k, 30)) for k in range(10)]
    answers = model.caption([*pictures, Image.new("L", (2000, 1000))], descriptor="bird")
    sizes = [*((20 + k, 30) for k in range(10)), (512, 256)]
    assert [(a.background_raw, a.pose_raw) for a in answers] == [(f"background {s}", f"pose {s}") for s in sizes]
    assert {question(body) for body in server.asked} == {q.format(d="bird") for q in captioners.QUESTIONS.values()}
    assert {(body["model"], body["temperature"], body["max_tokens"]) for body in server.asked} == {
        ("some/model", 0, 32)
    }
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {KEY}"}


def test_what_is_known_of_it_is_model_and_host_and_no_secret(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://user:{KEY}@127.0.0.1:{server.port}/{KEY}/v1?key={KEY}")
    model = captioners.load("openai_vision")
    assert (model.name, model.revision) == ("openai_vision:gpt-4o", f"gpt-4o at 127.0.0.1:{server.port}")
    assert captioners.revision("openai_vision") == model.revision
    assert KEY not in repr(model)
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert captioners.revision("openai_vision:gpt-4o-mini") == "gpt-4o-mini at api.openai.com"


def test_a_busy_server_is_asked_again(server: Server) -> None:
    busy = iter([fault(429, "slow down"), fault(503, "overloaded")])
    server.reply = lambda _: next(busy, said("a lake"))
    (answer,) = captioners.load("openai_vision").caption([Image.new("RGB", (8, 8))], descriptor="bird")
    assert (answer.background_raw, answer.pose_raw) == ("a lake", "a lake")
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "refuses the key in OPENAI_API_KEY"), (404, "no such model"), (503, r"answers 503: .*\*\*\* is over")],
)
def test_what_the_server_is_to_blame_for_says_what_to_do_and_not_the_key(
    server: Server, status: int, words: str
) -> None:
    server.reply = lambda _: fault(status, "no such model" if status == 404 else f"{KEY} is over its limit")
    reader = caption.CaptionStep(captioner="openai_vision", dataset="skyworld")
    with pytest.raises(ServerError, match=words) as caught:
        reader(load("skyworld").split(shots=1, val=1, seed=0)[:1])  # not that picture's rejection
    assert KEY not in str(caught.value)
    assert "run the same command again" in str(caught.value)


def test_a_server_that_is_gone_is_no_pictures_fault(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bob.captioners.openai_vision._RETRIES", 0)
    server.close()
    reader = caption.CaptionStep(captioner="openai_vision", dataset="skyworld")
    with pytest.raises(ServerError, match=f"127.0.0.1:{server.port} cannot be reached"):
        reader(load("skyworld").split(shots=1, val=1, seed=0)[:1])


def test_a_picture_that_the_server_will_not_take_is_rejected_alone(server: Server, tmp_path: Path) -> None:
    name = tiny.photos(tmp_path)
    good, bad = load(name).split(shots=2, val=1, seed=0)[:2]
    assert good.width != bad.width
    server.reply = lambda body: fault(400, "no") if picture(body).width == bad.width else said("the sea")
    rows, rejected = caption.CaptionStep(captioner="openai_vision", dataset=name)([good, bad])
    assert [row["image_id"] for row in rows] == [good.image_id]
    assert [(row["row_id"], row["error"]) for row in rejected] == [(bad.image_id, "ValueError")]


def test_without_key_and_server_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValueError, match="wants OpenAI's key in the environment variable OPENAI_API_KEY"):
        captioners.load("openai_vision").caption([Image.new("RGB", (8, 8))], descriptor="bird")


def test_the_class_that_it_names_is_its_guess(server: Server) -> None:
    dataset = load("skyworld")
    shots = dataset.split(shots=1, val=1, seed=0)[:4]
    answers = iter([f"{dataset.class_names[0]}.", "I cannot tell", None, f"It is a {dataset.class_names[7].upper()}"])
    # One at a time, for the answers are told apart by their order.
    for shot, wanted in zip(shots, (0, -1, -1, 7), strict=True):
        text = next(answers)
        server.reply = lambda _, text=text: said(text)
        (row,), rejected = RecogniseStep(captioner="openai_vision", dataset="skyworld")([shot])
        assert rejected == []
        assert row == {"image_id": shot.image_id, "class_id": shot.class_id, "guess": wanted, "log_likelihood": None}
    assert all(name in question(server.asked[0]) for name in dataset.class_names)


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("737-400", 1),
        ("The aircraft is a Boeing 737-400.", 1),
        ("737", 0),
        ("737 400", 1),
        ("a DC-10", 2),
        ("a DC-100", -1),
        ("737-400 or DC-10", -1),
        ("", -1),
    ],
)
def test_an_answer_names_one_class_or_none(answer: str, wanted: int) -> None:
    assert named(answer, ("737", "737-400", "DC-10")) == wanted
