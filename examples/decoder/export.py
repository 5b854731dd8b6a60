"""The decoder as one file with two methods."""

import torch

import hybridjit as hj

from .model import Decoder, build


def export_decoder(model: Decoder | None = None) -> hj.Exported:
    """Exports `prefill` and `decode`, verified one by one and in turn, each on what the other left in the cache."""
    prompt, word = torch.arange(5) + 1, torch.tensor([7])
    return hj.export(
        build() if model is None else model,
        (prompt,),
        methods={"prefill": [(prompt,), (prompt[:3],)], "decode": [(word,), (prompt[:2],)]},
        check_inputs=[(prompt[:1],)],
    )
