"""A small transformer decoder, untrained, that keeps keys and values of the words so far.

Its cache grows by each call, which TorchScript holds. The programs of torch.export have state of fixed sizes: for them
there is the same decoder with a cache of its largest size, written in place.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Causal self-attention over the words so far: those in the cache, then the new ones.

    Args:
        width: The features of a word.
        heads: How many heads there are.
        most: How many words the cache has room for; if 0, it grows: each call puts longer tensors in the place of the
            buffers.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, width: int, heads: int, most: int) -> None:
        super().__init__()
        self.heads, self.most = heads, most
        self.mix = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.register_buffer("keys", torch.zeros(heads, most, width // heads))
        self.register_buffer("values", torch.zeros(heads, most, width // heads))

    def forget(self) -> None:
        """Empties the cache; what is left in one of fixed size is not looked at before it is written anew."""
        if not self.most:
            self.keys, self.values = self.keys[:, :0], self.values[:, :0]

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        """Takes and returns `[n, width]`, n new words, of which `places`, int64 `[n]`, tells where they are."""
        query, key, value = self.mix(x).unflatten(1, (3, self.heads, -1)).permute(1, 2, 0, 3).unbind(0)
        if self.most:
            self.keys.index_copy_(1, places, key)
            self.values.index_copy_(1, places, value)
        else:
            self.keys, self.values = torch.cat((self.keys, key), 1), torch.cat((self.values, value), 1)
        seen = torch.arange(self.keys.shape[1], device=x.device) <= places[:, None]
        found = F.scaled_dot_product_attention(query, self.keys, self.values, attn_mask=seen)
        y: Tensor = self.out(found.transpose(0, 1).flatten(1))
        return y


class Decoder(nn.Module):
    """Tells which word comes next.

    Args:
        words: How many words there are.
        width: The features of a word.
        heads: How many heads of attention a layer has.
        layers: How many layers there are.
        most: How long a text may be.
        grows: Whether the cache grows, or has room for the longest text.
    """

    count: Tensor

    def __init__(
        self, words: int = 1000, width: int = 64, heads: int = 4, layers: int = 3, most: int = 128, grows: bool = True
    ) -> None:
        super().__init__()
        self.embed, self.places = nn.Embedding(words, width), nn.Embedding(most, width)
        self.attend = nn.ModuleList(Attention(width, heads, 0 if grows else most) for _ in range(layers))
        self.think = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            for _ in range(layers)
        )
        self.predict = nn.Linear(width, words)
        self.register_buffer("count", torch.zeros(1, dtype=torch.int64))

    def forward(self, words: Tensor) -> Tensor:
        """The next word's logits `[words]` after a text, int64 `[n]`; leaves the cache as `prefill` does."""
        return self.prefill(words)

    def prefill(self, words: Tensor) -> Tensor:
        """Starts a new text."""
        self.count.zero_()
        for attention in self.attend:
            attention.forget()  # type: ignore[operator]
        return self.decode(words)

    def decode(self, words: Tensor) -> Tensor:
        """Goes on with the text: takes the words that are new, int64 `[n]`, one at least."""
        places = self.count + torch.arange(words.shape[0], device=words.device)
        x = self.embed(words) + self.places(places)
        self.count += words.shape[0]
        for attend, think in zip(self.attend, self.think, strict=True):
            x = x + attend(x, places)
            x = x + think(x)
        logits: Tensor = self.predict(x[-1])
        return logits


def build(*, grows: bool = True) -> Decoder:
    """The decoder with weights drawn from a fixed seed, in eval mode."""
    torch.manual_seed(0)
    return Decoder(grows=grows).eval()
