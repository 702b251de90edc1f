"""Textual inversion: new words of a text encoder, all in one training, of which only their own embeddings learn.

Gal et al. 2022, arXiv:2208.01618. Saved as a safetensors file with an entry for each word, its vectors in rows: what
`StableDiffusionPipeline.load_textual_inversion` takes, one entry at a time.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

from bob.core.types import Token

__all__ = ["FILE", "Words", "add", "load", "saved", "take_out"]

FILE = "learned_embeds.safetensors"
"""The name that diffusers looks for."""


class Words(nn.Module):
    """A frozen table of embeddings and, behind its end, rows that learn."""

    def __init__(self, table: nn.Embedding, rows: Sequence[Tensor]) -> None:
        super().__init__()
        self.table = table.requires_grad_(False)
        self.rows = nn.ParameterList(rows)

    @property
    def weight(self) -> Tensor:
        """The frozen table: what is asked for its type and device."""
        return self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (b, length) -> embeddings (b, length, width).

        Rows that do not occur have no gradient, so that an optimiser leaves them and their moments as they are: many
        words learn side by side as each would alone.
        """
        old = self.table.num_embeddings
        embedded = self.table(ids.clamp(max=old - 1))
        new = ids >= old
        if not new.any():
            return embedded
        used, place = ids[new].unique(return_inverse=True)
        rows = torch.stack([self.rows[int(k) - old] for k in used])
        return embedded.masked_scatter(new[..., None], rows[place].to(embedded))


def add(pipeline: "StableDiffusionPipeline", words: Sequence[Token]) -> None:
    """Teaches the tokenizer new words and gives the text encoder a trainable row for each of their vectors.

    Freezes all else of the text encoder. A word begins as the mean embedding of the text that it `begins_as`.

    Raises:
        ValueError: if the tokenizer knows a word already.
    """
    tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder
    table = encoder.get_input_embeddings()
    if known := {word.name for word in words} & set(tokenizer.get_vocab()):
        raise ValueError(f"the tokenizer has a token {min(known)!r} already: give the new one another name")
    rows: list[Tensor] = []
    for word in words:
        ids = tokenizer(word.begins_as, add_special_tokens=False)["input_ids"] or [tokenizer.unk_token_id]
        mean = table.weight[torch.tensor(ids, device=table.weight.device)].detach().float().mean(0)
        rows += [mean.clone() for _ in range(word.vectors)]
        tokenizer.add_tokens(_names(word))
    encoder.requires_grad_(False)
    encoder.set_input_embeddings(Words(table, rows))


def saved(pipeline: "StableDiffusionPipeline", words: Sequence[Token]) -> bytes:
    """The words as the bytes of a safetensors file: name -> float32 (vectors, width)."""
    from safetensors.torch import save

    held: Any = pipeline.text_encoder.get_input_embeddings()
    rows = iter(held.rows)
    return save({word.name: torch.stack([next(rows).detach().cpu() for _ in range(word.vectors)]) for word in words})


def load(pipeline: "StableDiffusionPipeline", learned: bytes) -> None:
    """Gives a pipeline the words of a file that `saved` made.

    Raises:
        ValueError: if it is no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as parse

    try:
        words: Mapping[str, Tensor] = parse(learned)
    except SafetensorError as error:
        raise ValueError(
            f"the adapter's {FILE} is damaged ({error}): delete its folder below adapters, and the same command makes"
            " it again"
        ) from error
    encoder, grown = pipeline.text_encoder, sum(len(rows) for rows in words.values())
    with torch.random.fork_rng(devices=[]):  # the table grows by random rows at first
        encoder.resize_token_embeddings(len(pipeline.tokenizer) + grown, mean_resizing=False)
        pipeline.load_textual_inversion([{name: rows} for name, rows in words.items()], token=list(words))


def take_out(pipeline: "StableDiffusionPipeline", tokenizer: Any, *, rows: int) -> None:
    """Undoes `load`: puts back the tokenizer and cuts the table of embeddings to its first rows."""
    pipeline.tokenizer = tokenizer
    pipeline.text_encoder.resize_token_embeddings(rows, mean_resizing=False)


def _names(word: Token) -> list[str]:
    """Of a word's vectors, as diffusers calls them."""
    return [word.name, *(f"{word.name}_{k}" for k in range(1, word.vectors))]
