"""The decoder as one file with two methods."""

import torch

import hybridjit as hj

from .model import Decoder, build


def export_decoder(model: Decoder | None = None, format: str = "torchscript") -> hj.Exported:
    """Exports `prefill` and `decode`, verified one by one and in turn, each on what the other left in the cache.

    Args:
        model: The decoder; if absent, one whose cache the format can hold.
        format: Of the file: `"torchscript"` or `"pt2"`.
    """
    prompt, word = torch.arange(5) + 1, torch.tensor([7])
    return hj.export(
        build(grows=format == "torchscript") if model is None else model,
        (prompt,),
        format=format,
        methods={"prefill": [(prompt,), (prompt[:3],)], "decode": [(word,), (prompt[:2],)]},
        check_inputs=[(prompt[: 1 if format == "torchscript" else 3],)],
    )
