"""Models of vit-pytorch, x-transformers, pytorch-crf, diffusers, monai, open_clip and others."""

from typing import Any

import torch
from torch import nn

from hybridjit import Inputs

from .cases import Case, case
from .make import ids, library, mask, picture


@case("vit_pytorch")
def na_vit() -> Case:
    """Pictures of any size, packed into rows."""
    model = library("vit_pytorch.na_vit").NaViT(
        image_size=64, patch_size=16, num_classes=5, dim=32, depth=2, heads=2, mlp_dim=32, dim_head=16
    )

    def one(height: int, width: int) -> Any:
        return torch.randn(3, height, width)

    return Case(
        model.eval(),
        Inputs([[one(64, 64), one(32, 48)]]),
        {
            "other sizes": Inputs([[one(48, 64), one(64, 16)]]),
            "two rows": Inputs([[one(64, 64), one(32, 48)], [one(32, 32)]]),
            "one": Inputs([[one(48, 48)]]),
        },
    )


@case("vit_pytorch")
def crossformer() -> Case:
    model = library("vit_pytorch.crossformer").CrossFormer(
        num_classes=5,
        dim=(32, 32, 64, 64),
        depth=(1, 1, 1, 1),
        global_window_size=(4, 2, 2, 1),
        local_window_size=2,
    )
    return Case(
        model.eval(),
        Inputs(picture(1, 64, 64)),
        {
            "three": Inputs(picture(3, 64, 64)),
            "larger": Inputs(picture(1, 128, 128)),
            "wide": Inputs(picture(1, 64, 128)),
        },
    )


@case("vit_pytorch")
def simple_vit() -> Case:
    model = library("vit_pytorch.simple_vit").SimpleViT(
        image_size=64, patch_size=16, num_classes=5, dim=32, depth=2, heads=2, mlp_dim=32, dim_head=16
    )
    return Case(
        model.eval(),
        Inputs(picture(1, 64, 64)),
        {"three": Inputs(picture(3, 64, 64)), "two": Inputs(picture(2, 64, 64))},
    )


@case("vit_pytorch")
def cct() -> Case:
    model = library("vit_pytorch.cct").CCT(
        img_size=(64, 64),
        embedding_dim=32,
        n_conv_layers=1,
        num_layers=2,
        num_heads=2,
        mlp_ratio=2.0,
        num_classes=5,
        positional_embedding="learnable",
    )
    return Case(
        model.eval(),
        Inputs(picture(1, 64, 64)),
        {"three": Inputs(picture(3, 64, 64)), "two": Inputs(picture(2, 64, 64))},
    )


@case("x_transformers")
def rotary() -> Case:
    lib = library("x_transformers")
    model = lib.TransformerWrapper(
        num_tokens=99,
        max_seq_len=64,
        attn_layers=lib.Encoder(dim=32, depth=2, heads=2, attn_dim_head=16, rotary_pos_emb=True),
    )
    return _tokens(model)


@case("x_transformers")
def alibi() -> Case:
    lib = library("x_transformers")
    layers = lib.Decoder(dim=32, depth=2, heads=2, attn_dim_head=16, alibi_pos_bias=True, alibi_num_heads=1)
    return _tokens(lib.TransformerWrapper(num_tokens=99, max_seq_len=64, attn_layers=layers))


@case("x_transformers")
def relative() -> Case:
    lib = library("x_transformers")
    layers = lib.Decoder(dim=32, depth=2, heads=2, attn_dim_head=16, rel_pos_bias=True, sandwich_norm=True)
    return _tokens(lib.TransformerWrapper(num_tokens=99, max_seq_len=64, attn_layers=layers))


def _tokens(model: Any) -> Case:
    def call(batch: int, length: int, *padded: int, **more: Any) -> Inputs:
        return Inputs(ids(batch, length), mask=mask(batch, length, *padded).bool(), **more)

    return Case(
        model.eval(),
        call(2, 12),
        {
            "longer": call(1, 21),
            "padded": call(2, 12, 0, 5),
            "vectors instead of tokens": call(2, 12, return_embeddings=True),
        },
    )


@case("local_attention")
def local_attention() -> Case:
    lib = library("local_attention")
    model = lib.LocalTransformer(
        num_tokens=99, dim=32, depth=2, max_seq_len=64, local_attn_window_size=8, causal=True, heads=2, dim_head=16
    )
    return Case(
        model.eval(),
        Inputs(ids(2, 16)),
        {"odd": Inputs(ids(2, 21)), "shorter than a window": Inputs(ids(1, 5)), "longer": Inputs(ids(1, 40))},
    )


@case("reformer_pytorch")
def reformer_lm() -> Case:
    lib = library("reformer_pytorch")
    model = lib.ReformerLM(
        num_tokens=99,
        dim=32,
        depth=2,
        max_seq_len=64,
        heads=2,
        bucket_size=4,
        n_hashes=2,
        causal=True,
        full_attn_thres=16,
    )
    return Case(
        model.eval(),
        Inputs(ids(2, 32)),
        {"longer": Inputs(ids(1, 48)), "short: full attention": Inputs(ids(2, 16)), "three": Inputs(ids(3, 32))},
    )


@case("vector_quantize_pytorch")
def quantize() -> Case:
    lib = library("vector_quantize_pytorch")
    model = lib.ResidualVQ(dim=8, num_quantizers=3, codebook_size=16)
    return Case(
        model.eval(),
        Inputs(torch.randn(1, 10, 8)),
        {
            "longer": Inputs(torch.randn(1, 23, 8)),
            "two": Inputs(torch.randn(2, 10, 8)),
            "larger values": Inputs(torch.randn(1, 10, 8) * 9),
        },
    )


class _Tags(nn.Module):
    """Only calls the library: its `decode` is the way that its users take."""

    def __init__(self) -> None:
        super().__init__()
        self.crf = library("torchcrf").CRF(5, batch_first=True)

    def forward(self, scores: Any, mask: Any) -> Any:
        return self.crf.decode(scores, mask)


@case("torchcrf")
def crf_decodes() -> Case:
    """Viterbi in Python: the result is lists of numbers."""

    def call(batch: int, length: int, *padded: int) -> Inputs:
        return Inputs(torch.randn(batch, length, 5), mask(batch, length, *padded).bool())

    return Case(
        _Tags().eval(), call(2, 6), {"other scores": call(2, 6), "longer": call(2, 9), "padded": call(2, 6, 0, 2)}
    )


@case("torchcrf")
def crf_scores() -> Case:
    model = library("torchcrf").CRF(5, batch_first=True).eval()

    def call(batch: int, length: int, *padded: int) -> Inputs:
        tags = torch.randint(0, 5, (batch, length))
        return Inputs(torch.randn(batch, length, 5), tags, mask(batch, length, *padded).bool())

    return Case(model, call(2, 6), {"longer": call(2, 9), "padded": call(2, 6, 0, 2), "three": call(3, 6)})


@case("diffusers")
def diffusion_unet() -> Case:
    """Sizes that the factor does not divide are sampled up to the size they came from."""
    lib = library("diffusers")
    model = lib.UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(16, 32),
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
    ).eval()

    def call(batch: int, height: int, width: int, words: int, step: float = 10.0) -> Inputs:
        return Inputs(torch.randn(batch, 4, height, width), torch.tensor(step), torch.randn(batch, words, 16))

    return Case(
        model,
        call(1, 16, 16, 5),
        {"odd": call(1, 17, 23, 5), "two": call(2, 16, 16, 5), "another step, longer text": call(1, 16, 16, 9, 400.0)},
    )


@case("diffusers")
def tiled_vae() -> Case:
    """Large pictures are coded in tiles."""
    lib = library("diffusers")
    model = lib.AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
    ).eval()
    model.enable_tiling()
    model.tile_sample_min_size = 48
    model.tile_latent_min_size = 24
    return Case(
        model,
        Inputs(picture(1, 32, 32)),
        {
            "in tiles": Inputs(picture(1, 64, 80)),
            "two": Inputs(picture(2, 32, 32)),
            "larger, no tiles": Inputs(picture(1, 40, 48)),
        },
    )


@case("monai")
def swin_unetr() -> Case:
    model = library("monai.networks.nets").SwinUNETR(
        in_channels=1, out_channels=2, feature_size=12, spatial_dims=2, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 4)
    )
    return Case(
        model.eval(),
        Inputs(torch.randn(1, 1, 64, 64)),
        {
            "two": Inputs(torch.randn(2, 1, 64, 64)),
            "larger": Inputs(torch.randn(1, 1, 96, 96)),
            "wide": Inputs(torch.randn(1, 1, 64, 128)),
        },
    )


@case("monai")
def basic_unet() -> Case:
    """Pads where a level's size is odd."""
    model = library("monai.networks.nets").BasicUNet(spatial_dims=2, features=(8, 8, 16, 16, 16, 8))
    return Case(
        model.eval(),
        Inputs(torch.randn(1, 1, 32, 32)),
        {
            "odd": Inputs(torch.randn(1, 1, 37, 51)),
            "two": Inputs(torch.randn(2, 1, 32, 32)),
            "wide": Inputs(torch.randn(1, 1, 32, 80)),
        },
    )


@case("monai")
def sliding_window() -> Case:
    """A network moved over an input of any size, by monai's own inferer."""
    inferers, nets = library("monai.inferers"), library("monai.networks.nets")

    class Sliding(nn.Module):
        """Only calls the library."""

        def __init__(self) -> None:
            super().__init__()
            self.network = nets.BasicUNet(spatial_dims=2, features=(4, 4, 8, 8, 8, 4))

        def forward(self, image: Any, overlap: float) -> Any:
            return inferers.sliding_window_inference(image, (32, 32), 2, self.network, overlap=overlap, progress=False)

    def call(batch: int, height: int, width: int, overlap: float = 0.25) -> Inputs:
        return Inputs(torch.randn(batch, 1, height, width), overlap)

    return Case(
        Sliding().eval(),
        call(1, 48, 48),
        {"larger": call(1, 75, 60), "smaller than a window": call(1, 22, 24), "more overlap": call(1, 48, 48, 0.5)},
    )


@case("open_clip")
def open_clip() -> Case:
    lib = library("open_clip.model")
    model = lib.CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 64, "patch_size": 16, "width": 32, "layers": 2, "head_width": 8},
        text_cfg={"context_length": 12, "vocab_size": 99, "width": 32, "heads": 2, "layers": 2},
    ).eval()

    def call(pictures: int, texts: int) -> Inputs:
        return Inputs(picture(pictures, 64, 64), ids(texts, 12))

    return Case(
        model,
        call(2, 2),
        {"more texts": call(1, 5), "only pictures": Inputs(picture(2, 64, 64), None)},
    )
