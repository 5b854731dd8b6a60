"""Models that other people wrote, unedited: what a plain trace makes of them, and what `branches="auto"` does.

`python -m benchmarks.libraries` needs transformers and timm; the models are small, with random weights.
Each is exported from its first input alone, and the file then runs the others: right, loud (it raises)
or wrong (it gives something else, silently).
"""

import argparse
import importlib
import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import hybridjit as hj

from .table import environment

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 99,
    "max_position_embeddings": 64,
}
DECODER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 99}


def text(*sizes: tuple[int, int]) -> list[tuple[Tensor, ...]]:
    """Token ids and masks, the last one with padding."""
    calls: list[tuple[Tensor, ...]] = []
    for batch, length in sizes:
        mask = torch.ones(batch, length, dtype=torch.long)
        calls.append((torch.randint(3, 99, (batch, length)), mask))
    calls[-1][1][:, -2:] = 0
    return calls


def image(*sizes: tuple[int, int, int]) -> list[tuple[Tensor, ...]]:
    """Pictures."""
    return [(torch.randn(batch, 3, height, width),) for batch, height, width in sizes]


TOKENS = ((2, 12), (1, 7), (3, 20), (2, 12))
SQUARES = ((1, 64, 64), (2, 64, 64), (1, 96, 96), (1, 64, 128))


@dataclass(frozen=True)
class Entry:
    """A model to make: a library's class, its configuration, its calls."""

    name: str
    make: Callable[[], nn.Module]
    calls: Callable[[], list[tuple[Tensor, ...]]]


def _transformer(name: str, config: dict[str, Any], calls: Callable[[], list[tuple[Tensor, ...]]]) -> Entry:
    def make() -> nn.Module:
        library: Any = importlib.import_module("transformers")
        settings = getattr(library, name.removesuffix("Model").removesuffix("Encoder") + "Config")
        model: nn.Module = getattr(library, name)(settings(**config))
        return Output(model)

    return Entry(name, make, calls)


class Output(nn.Module):
    """The first tensor of a model's result, which is what its users read."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        result: Any = self.model(x) if mask is None else self.model(x, attention_mask=mask)
        first = result[0] if not isinstance(result, Tensor) else result
        assert isinstance(first, Tensor)
        return first


def _timm(name: str, calls: Callable[[], list[tuple[Tensor, ...]]], **settings: Any) -> Entry:
    def make() -> nn.Module:
        library: Any = importlib.import_module("timm")
        model: nn.Module = library.create_model(name, pretrained=False, num_classes=10, **settings)
        return model

    return Entry(f"timm {name}", make, calls)


def entries() -> list[Entry]:
    """The models."""
    tokens = lambda: text(*TOKENS)  # noqa: E731
    squares = lambda: image(*SQUARES)  # noqa: E731
    vision = {k: v for k, v in SMALL.items() if k not in ("vocab_size", "max_position_embeddings")}
    stages = {
        "embed_dim": 12,
        "depths": [2, 2],
        "num_heads": [2, 4],
        "window_size": 4,
        "image_size": 64,
        "patch_size": 4,
    }
    names = (
        "Bert",
        "Roberta",
        "Electra",
        "Ernie",
        "MPNet",
        "XLMRoberta",
        "Camembert",
        "RoFormer",
        "Splinter",
        "LayoutLM",
    )
    found = [_transformer(f"{name}Model", SMALL, tokens) for name in names]
    found += [
        _transformer(
            "DistilBertModel", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "vocab_size": 99}, tokens
        ),
        _transformer("AlbertModel", {**SMALL, "embedding_size": 16}, tokens),
        _transformer("DebertaV2Model", {**SMALL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}, tokens),
        _transformer("NystromformerModel", {**SMALL, "num_landmarks": 4, "segment_means_seq_len": 64}, tokens),
        _transformer("LongformerModel", {**SMALL, "attention_window": 4}, tokens),
        _transformer("BigBirdModel", {**SMALL, "block_size": 4, "num_random_blocks": 1}, tokens),
        _transformer(
            "GPT2Model", {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99, "n_positions": 64}, tokens
        ),
        _transformer(
            "OPTModel", {**DECODER, "ffn_dim": 64, "max_position_embeddings": 64, "word_embed_proj_dim": 32}, tokens
        ),
        _transformer("BloomModel", {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99}, tokens),
        _transformer(
            "T5EncoderModel",
            {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 99},
            tokens,
        ),
        _transformer("LlamaModel", {**SMALL, "num_key_value_heads": 4}, tokens),
        _transformer("MistralModel", {**SMALL, "num_key_value_heads": 4, "sliding_window": 8}, tokens),
        _transformer("MixtralModel", {**SMALL, "num_key_value_heads": 4, "num_local_experts": 4}, tokens),
        _transformer("ViTModel", {**vision, "image_size": 64, "patch_size": 8}, squares),
        _transformer("BeitModel", {**vision, "image_size": 64, "patch_size": 8}, squares),
        _transformer("Dinov2Model", {**vision, "image_size": 64, "patch_size": 8}, squares),
        _transformer("SwinModel", stages, squares),
        _transformer("Swinv2Model", stages, squares),
        _transformer("ConvNextModel", {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}, squares),
        _transformer(
            "SegformerModel",
            {
                "hidden_sizes": [8, 16],
                "depths": [1, 1],
                "num_encoder_blocks": 2,
                "num_attention_heads": [1, 2],
                "sr_ratios": [2, 1],
                "patch_sizes": [7, 3],
                "strides": [4, 2],
                "mlp_ratios": [2, 2],
            },
            squares,
        ),
        _transformer(
            "MobileViTModel",
            {"image_size": 64, "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 16, 16, 32]},
            squares,
        ),
        _transformer("PoolFormerModel", {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1]}, squares),
        _timm("resnet10t", squares),
        _timm("vit_tiny_patch16_224", squares, img_size=64, dynamic_img_size=True, depth=2),
        _timm(
            "swin_tiny_patch4_window7_224",
            squares,
            img_size=64,
            depths=(1, 1),
            num_heads=(2, 4),
            embed_dim=16,
            strict_img_size=False,
        ),
        _timm("twins_svt_small", squares),
        _timm("edgenext_xx_small", squares),
        _timm("efficientnet_b0", squares),
        _timm("coat_tiny", squares, img_size=64),
        _timm("maxvit_rmlp_pico_rw_256", squares, img_size=64),
    ]
    return found


@dataclass
class Outcome:
    """What became of one model's further inputs."""

    name: str
    plain: list[str] = field(default_factory=list)
    auto: list[str] = field(default_factory=list)
    branches: int = 0
    said: list[str] = field(default_factory=list)
    seconds: float = 0.0


def judge(file: Callable[..., Any], model: nn.Module, calls: Sequence[tuple[Tensor, ...]]) -> list[str]:
    """Runs the further inputs."""
    verdicts = []
    for call in calls:
        try:
            expected = model(*call)
        except Exception:  # the model itself does not take this input
            verdicts.append("-")
            continue
        try:
            result = file(*call)
        except Exception:  # loud, in whichever way
            verdicts.append("loud")
            continue
        try:
            torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-4)
            verdicts.append("right")
        except AssertionError:
            verdicts.append("WRONG")
    return verdicts


def run(entry: Entry) -> Outcome:
    """Captures one model twice, and judges both files."""
    torch.manual_seed(0)
    outcome = Outcome(entry.name)
    model = entry.make().eval()
    first, *others = entry.calls()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            jit: Any = torch.jit
            outcome.plain = judge(jit.trace(model, first, check_trace=False), model, others)
        except Exception as error:  # whatever stops a trace
            outcome.plain = [f"refused: {type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"]
        start = time.perf_counter()
        try:
            exported = hj.export(model, first, branches="auto")
            outcome.seconds = time.perf_counter() - start
            outcome.branches = sum(branch.count for branch in exported.report.branches)
            outcome.said = [f.message for f in exported.report.findings if f.code in ("HJ003", "HJ004")]
            outcome.auto = judge(exported, model, others)
        except hj.HybridJitError as error:
            outcome.auto = [f"refused: {' '.join(str(error).split())[:300]}"]
    return outcome


def main() -> int:
    """Prints the table and writes it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.libraries", description=__doc__)
    parser.add_argument("names", nargs="*", help="models to run (default: all)")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/libraries.json"), help="default: %(default)s"
    )
    options = parser.parse_args()
    outcomes = []
    for entry in entries():
        if options.names and not any(name in entry.name for name in options.names):
            continue
        try:
            outcome = run(entry)
        except Exception as error:  # the library changed: said, and the others go on
            print(f"{entry.name:36} not run: {type(error).__name__}: {str(error).strip()[:150]}", flush=True)
            continue
        outcomes.append(outcome)
        plain, auto = " ".join(outcome.plain), " ".join(outcome.auto)
        print(f"{outcome.name:36} {plain:28.60} {auto:28.200} {outcome.branches:4} {outcome.seconds:.1f} s", flush=True)
    words = ("right", "loud", "WRONG", "refused", "-")
    for way in ("plain", "auto"):
        counts = [word for outcome in outcomes for word in getattr(outcome, way)]
        print(way, {word: sum(each.startswith(word) for each in counts) for word in words})
    options.out.parent.mkdir(parents=True, exist_ok=True)
    data = {"environment": environment(), "models": [asdict(outcome) for outcome in outcomes]}
    options.out.write_text(json.dumps(data, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
