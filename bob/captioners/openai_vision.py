"""Captioner that asks any server with OpenAI's chat completions: GPT-4o (Figure 5), vLLM, Ollama ...

    openai_vision  openai_vision:gpt-4o  openai_vision:Qwen/Qwen2.5-VL-72B-Instruct

`OPENAI_BASE_URL` is the server's address, OpenAI's if it is not set. `OPENAI_API_KEY` is read from the environment for
each request and stored nowhere. Pictures are sent to the server. A hosted model may change under its name, so answers
are only as reproducible as the server's.
"""

import base64
import io
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar, final
from urllib.parse import urlsplit

from PIL import Image

from bob.captioners import NAMING, QUESTIONS, Answer, Captioner, Loader, Recognition

__all__ = ["OpenAIVision", "ServerError", "captioner", "named"]

_MODEL = "gpt-4o"
_SERVER = "https://api.openai.com/v1"
_SIDE = 512  # pixels of the longer side: one tile of GPT-4o
_MAX_TOKENS = 32
_RETRIES = 6  # by the client, after 0.5 s, 1 s, 2 s ... or the delay that the server names
_AT_ONCE = 8  # questions; a server takes a second or more for each
_PICTURE = (400, 413, 422)  # status codes of a refused picture

Response = TypeVar("Response")


class ServerError(ConnectionError, ValueError):
    """A failure of the server, key or model, not of a picture. The same command resumes once it is fixed."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class OpenAIVision(Captioner):
    """Captioner at temperature 0: one picture and one question per request, several requests at once."""

    model: str
    """The server's name of the model."""

    def caption(self, images: Sequence[Image.Image], *, descriptor: str) -> list[Answer]:
        """Asks both questions of each picture.

        Raises:
            ServerError: if the server cannot be reached, refuses the key or the model, or is still too busy after
                several attempts.
            ValueError: if the server refuses a picture.
        """
        questions = [question.format(d=descriptor) for question in QUESTIONS.values()]
        texts = self._answers([(image, question) for image in images for question in questions])
        return [Answer(background_raw=b, pose_raw=p) for b, p in zip(texts[::2], texts[1::2], strict=True)]

    def recognise(
        self, images: Sequence[Image.Image], *, descriptor: str, class_names: Sequence[str]
    ) -> list[Recognition]:
        """The class that the answer names; likelihoods of other answers are not available.

        Raises:
            ServerError: as `caption` does.
            ValueError: if the server refuses a picture.
        """
        question = NAMING.format(d=descriptor, names="; ".join(class_names))
        return [
            Recognition(guess=named(text, class_names))
            for text in self._answers([(image, question) for image in images])
        ]

    def _answers(self, prompts: Sequence[tuple[Image.Image, str]]) -> list[str]:
        client = _client()
        with client, ThreadPoolExecutor(_AT_ONCE) as threads:
            return list(threads.map(lambda prompt: self._answer(client, *prompt), prompts))

    def _answer(self, client: Any, image: Image.Image, question: str) -> str:
        picture = {"type": "image_url", "image_url": {"url": _data_url(image)}}
        turn = {"role": "user", "content": [picture, {"type": "text", "text": question}]}
        completion = _translated(
            lambda: client.chat.completions.create(
                model=self.model, messages=[turn], temperature=0, max_tokens=_MAX_TOKENS
            ),
            self.model,
        )
        return completion.choices[0].message.content or ""


def named(answer: str, class_names: Sequence[str]) -> int:
    """Class id of the only name in an answer, ignoring capitals and punctuation; -1 for none or several.

    If a name in the answer is part of another (`737` of `737-400`), the longest counts.
    """
    text, names = _words(answer), [_words(name) for name in class_names]
    hits = [k for k, name in enumerate(names) if name in text]
    longest = [k for k in hits if not any(names[k] in names[j] for j in hits if j != k)]
    return longest[0] if len(longest) == 1 else -1


def _words(text: str) -> str:
    return " ".join(["", *re.findall(r"[^\W_]+", text.casefold()), ""])


def _data_url(image: Image.Image) -> str:
    small, buffer = image.convert("RGB"), io.BytesIO()
    small.thumbnail((_SIDE, _SIDE))
    small.save(buffer, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _client() -> Any:
    """OpenAI's client, which retries when the server is busy or the connection is lost."""
    openai = _library()
    key, url = os.environ.get("OPENAI_API_KEY"), os.environ.get("OPENAI_BASE_URL")
    if not key and not url:
        raise ServerError(
            "captioner openai_vision wants OpenAI's key in the environment variable OPENAI_API_KEY, which is not set;"
            " or set OPENAI_BASE_URL to a server of your own, which may need none"
        )
    return openai.OpenAI(api_key=key or "none", base_url=url or _SERVER, max_retries=_RETRIES, timeout=120)


def _library() -> Any:
    try:
        import openai
    except ImportError as error:
        raise ServerError(
            "captioner openai_vision wants OpenAI's client: pip install 'beyond-objects[openai]'"
        ) from error
    return openai


def _translated(request: Callable[[], Response], model: str) -> Response:
    """The result of `request`; errors become a sentence without the key, which servers may quote."""
    openai = _library()
    try:
        return request()
    except openai.APIConnectionError as error:
        raise ServerError(
            f"the captioner's server {_host()} cannot be reached ({type(error).__name__}): see that it runs and that"
            " OPENAI_BASE_URL is right, then run the same command again"
        ) from None
    except openai.APIStatusError as error:
        words = _redacted(error.message)
        if error.status_code in _PICTURE:
            raise ValueError(f"{_host()} will not take it: {words}") from None
        if error.status_code in (401, 403):
            words = "it refuses the key in OPENAI_API_KEY"
        raise ServerError(
            f"the captioner's server {_host()}, asked for {model}, answers {error.status_code}: {words}; mend that or"
            " wait, then run the same command again"
        ) from None


def _redacted(message: str) -> str:
    key = os.environ.get("OPENAI_API_KEY")
    return " ".join((message.replace(key, "***") if key else message).split())[:200]


def _host() -> str:
    """Host and port, without user, password and path, which may contain secrets."""
    url = urlsplit(os.environ.get("OPENAI_BASE_URL") or _SERVER)
    return f"{url.hostname}:{url.port}" if url.port else str(url.hostname)


def _load(argument: str, device: str) -> OpenAIVision:
    model = argument or _MODEL
    return OpenAIVision(name=f"openai_vision:{model}", revision=_revision(argument), model=model)


def _revision(argument: str) -> str:
    """Model and server; a server tells no version of its weights."""
    return f"{argument or _MODEL} at {_host()}"


captioner = Loader(load=_load, revision=_revision, remote=True)
