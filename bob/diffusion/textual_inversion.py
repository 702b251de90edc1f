"""Textual inversion: new tokens of a text encoder, trained together; only their own embeddings learn.

Gal et al. 2022, arXiv:2208.01618. Saved as a safetensors file with an entry for each token, its vectors in rows, which
`StableDiffusionPipeline.load_textual_inversion` takes one at a time.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

from bob.core.types import Token

__all__ = ["FILE", "ExtendedEmbedding", "add", "drop_absent", "load", "serialize", "unload"]

FILE = "learned_embeds.safetensors"
"""File name that diffusers looks for."""


class ExtendedEmbedding(nn.Module):
    """Frozen embedding table followed by trainable rows, whose ids begin at the table's length."""

    def __init__(self, table: nn.Embedding, rows: Sequence[Tensor]) -> None:
        super().__init__()
        self.table = table.requires_grad_(False)
        self.rows = nn.ParameterList(rows)

    @property
    def weight(self) -> Tensor:
        """The frozen table (vocabulary, width): transformers reads its dtype and device."""
        return self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (b, length) -> embeddings (b, length, width)."""
        old = self.table.num_embeddings
        embedded = self.table(ids.clamp(max=old - 1))
        rows = nn.functional.embedding((ids - old).clamp(min=0), torch.stack(list(self.rows)))
        return torch.where((ids >= old)[..., None], rows.to(embedded), embedded)


def add(pipeline: "StableDiffusionPipeline", tokens: Sequence[Token]) -> None:
    """Adds tokens to the tokenizer, and to the text encoder a trainable row for each of their vectors.

    Freezes the rest of the text encoder. A token starts as the mean embedding of its text `begins_as`.

    Raises:
        ValueError: if the tokenizer has one of the tokens already.
    """
    tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder
    table = encoder.get_input_embeddings()
    if known := {token.name for token in tokens} & set(tokenizer.get_vocab()):
        raise ValueError(f"the tokenizer has a token {min(known)!r} already: give the new one another name")
    rows: list[Tensor] = []
    for token in tokens:
        ids = tokenizer(token.begins_as, add_special_tokens=False)["input_ids"] or [tokenizer.unk_token_id]
        mean = table.weight[torch.tensor(ids, device=table.weight.device)].detach().float().mean(0)
        rows += [mean.clone() for _ in range(token.vectors)]
        tokenizer.add_tokens(_names(token))
    encoder.requires_grad_(False)
    encoder.set_input_embeddings(ExtendedEmbedding(table, rows))


def drop_absent(pipeline: "StableDiffusionPipeline", shown: frozenset[int]) -> None:
    """Removes the gradients of trainable rows that a batch did not show.

    An optimiser then changes neither such a row nor its moments: each of many tokens learns as it would alone.

    Args:
        pipeline: with the tokens that `add` added, if any.
        shown: token ids of the batch.
    """
    embedding: Any = pipeline.text_encoder.get_input_embeddings()
    if isinstance(embedding, ExtendedEmbedding):
        for number, row in enumerate(embedding.rows, embedding.table.num_embeddings):
            if number not in shown:
                row.grad = None


def serialize(pipeline: "StableDiffusionPipeline", tokens: Sequence[Token]) -> bytes:
    """The tokens' embeddings as the bytes of a safetensors file: name -> float32 (vectors, width)."""
    from safetensors.torch import save

    embedding: Any = pipeline.text_encoder.get_input_embeddings()
    rows = iter(embedding.rows)
    return save(
        {token.name: torch.stack([next(rows).detach().cpu() for _ in range(token.vectors)]) for token in tokens}
    )


def load(pipeline: "StableDiffusionPipeline", learned: bytes) -> None:
    """Adds the tokens of a file that `serialize` made to a pipeline.

    Raises:
        ValueError: if it is not a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as parse

    try:
        embeddings: Mapping[str, Tensor] = parse(learned)
    except SafetensorError as error:
        raise ValueError(
            f"the adapter's {FILE} is damaged ({error}): delete its folder below adapters, and the same command makes"
            " it again"
        ) from error
    encoder, added = pipeline.text_encoder, sum(len(rows) for rows in embeddings.values())
    with torch.random.fork_rng(devices=[]):  # resizing fills the added rows at random first
        encoder.resize_token_embeddings(len(pipeline.tokenizer) + added, mean_resizing=False)
        pipeline.load_textual_inversion([{name: rows} for name, rows in embeddings.items()], token=list(embeddings))


def unload(pipeline: "StableDiffusionPipeline", tokenizer: Any, *, rows: int) -> None:
    """Removes learned tokens and restores the original vocabulary.

    Args:
        pipeline: with the tokens that `load` added, if any.
        tokenizer: a copy of the original tokenizer.
        rows: length of the original embedding table.
    """
    pipeline.tokenizer = tokenizer
    pipeline.text_encoder.resize_token_embeddings(rows, mean_resizing=False)


def _names(token: Token) -> list[str]:
    """Names that diffusers gives to the vectors of a token."""
    return [token.name, *(f"{token.name}_{k}" for k in range(1, token.vectors))]
