"""A language model's greedy decoding, word by word until every sentence has ended."""

import torch
from torch import Tensor, nn

import hybridjit as hj

END = 0
"""The word that ends a sentence, and fills what follows it."""


class Decoder(nn.Module):
    """Continues sentences with the likeliest word, again and again.

    One layer of attention; keys and values of the words so far are kept, and grow with the sentence.

    Args:
        words: Size of the vocabulary.
        width: Size of a word's vector.
        limit: How many words it adds at most.
    """

    def __init__(self, words: int, width: int, limit: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.attend = nn.Linear(width, 3 * width)
        self.predict = nn.Linear(width, words)
        self.limit = limit

    def forward(self, prompt: Tensor) -> Tensor:
        """Continues a batch of prompts.

        Args:
            prompt: int64 `[b, n]`, n at least 1.

        Returns:
            int64 `[b, k]`: the words added, k the length of the longest continuation.
        """
        _, keys, values = self.attend(self.embed(prompt[:, :-1])).chunk(3, 2)

        def goes_on(said: Tensor, last: Tensor, *_: Tensor) -> Tensor:
            return (last != END).any() & (said.shape[1] < self.limit)

        def say(said: Tensor, last: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            query, key, value = self.attend(self.embed(last)).chunk(3, 2)
            keys, values = torch.cat((keys, key), 1), torch.cat((values, value), 1)
            seen = nn.functional.scaled_dot_product_attention(query, keys, values)
            word = self.predict(seen).argmax(2).masked_fill(last == END, END)
            return torch.cat((said, word), 1), word, keys, values

        return hj.while_loop(goes_on, say, (prompt[:, :0], prompt[:, -1:], keys, values))[0]


def build() -> Decoder:
    """A decoder that adds at most eight words, untrained, in eval mode."""
    torch.manual_seed(0)
    return Decoder(words=12, width=16, limit=8).eval()


def draw(generator: torch.Generator) -> Tensor:
    """Random prompts: up to two sentences of one to six words."""
    b = int(torch.randint(0, 3, (), generator=generator))
    n = int(torch.randint(1, 7, (), generator=generator))
    return torch.randint(0, 12, (b, n), generator=generator)


def path_of(said: Tensor) -> str:
    """The path that a batch took, in words."""
    ends = {0: "nothing to add", 1: "ends with the first word", 8: "goes on to the limit"}
    return ends.get(said.shape[1], "ends on the way")
