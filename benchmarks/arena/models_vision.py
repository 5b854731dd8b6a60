"""Models of pictures: windows, positions, strides that do not divide, several inputs."""

from typing import Any

import torch

from hybridjit import Inputs

from .cases import Case, case
from .make import SMALL, VISION, configured, ids, library, mask, picture


def _sizes(model: Any, side: int = 64, **settings: Any) -> Case:
    return Case(
        model,
        Inputs(picture(1, side, side), **settings),
        {
            "three pictures": Inputs(picture(3, side, side), **settings),
            "larger": Inputs(picture(1, side * 3 // 2, side * 3 // 2), **settings),
            "wide": Inputs(picture(2, side, side * 2), **settings),
        },
    )


def _any_size(model: Any, **settings: Any) -> Case:
    made = _sizes(model, **settings)
    made.others["odd"] = Inputs(picture(1, 71, 90), **settings)
    return made


_STAGES: dict[str, Any] = {
    "embed_dim": 12,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": 4,
    "image_size": 64,
    "patch_size": 4,
}


@case("transformers")
def swin() -> Case:
    return _any_size(configured("SwinModel", "SwinConfig", **_STAGES))


@case("transformers")
def swinv2() -> Case:
    made = _any_size(configured("Swinv2Model", "Swinv2Config", **_STAGES))
    made.others["smaller than two windows"] = Inputs(picture(1, 16, 32))
    return made


@case("transformers")
def swin2sr() -> Case:
    settings = {"embed_dim": 12, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4, "image_size": 16}
    model = configured("Swin2SRForImageSuperResolution", "Swin2SRConfig", **settings, upscale=2)
    return _sizes(model, 16)


@case("transformers")
def focalnet() -> Case:
    settings = {"embed_dim": 12, "depths": [1, 1], "focal_levels": [2, 2], "focal_windows": [3, 3], "image_size": 64}
    return _any_size(configured("FocalNetModel", "FocalNetConfig", **settings))


@case("transformers")
def vit() -> Case:
    """Positions are interpolated only where the call says so."""
    made = _sizes(configured("ViTModel", "ViTConfig", **VISION), interpolate_pos_encoding=True)
    made.others["not interpolated"] = Inputs(picture(2, 64, 64), interpolate_pos_encoding=False)
    return made


@case("transformers")
def beit() -> Case:
    settings = {**VISION, "use_relative_position_bias": True, "use_absolute_position_embeddings": True}
    return _sizes(configured("BeitModel", "BeitConfig", **settings))


@case("transformers")
def dinov2() -> Case:
    settings = {key: value for key, value in VISION.items() if key != "intermediate_size"}
    return _any_size(configured("Dinov2Model", "Dinov2Config", **settings))


@case("transformers")
def vit_mae() -> Case:
    settings = {
        **VISION,
        "decoder_hidden_size": 16,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 2,
        "decoder_intermediate_size": 32,
    }
    model = configured("ViTMAEForPreTraining", "ViTMAEConfig", **settings)
    return Case(
        model,
        Inputs(picture(2, 64, 64), noise=torch.rand(2, 64)),
        {
            "another noise": Inputs(picture(2, 64, 64), noise=torch.rand(2, 64)),
            "three": Inputs(picture(3, 64, 64), noise=torch.rand(3, 64)),
            "larger": Inputs(picture(1, 96, 96), noise=torch.rand(1, 144), interpolate_pos_encoding=True),
        },
    )


@case("transformers")
def mobilevit() -> Case:
    settings = {"image_size": 64, "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 16, 16, 32]}
    return _any_size(configured("MobileViTModel", "MobileViTConfig", **settings))


@case("transformers")
def segformer() -> Case:
    settings = {
        "hidden_sizes": [8, 16],
        "depths": [1, 1],
        "num_encoder_blocks": 2,
        "num_attention_heads": [1, 2],
        "sr_ratios": [2, 1],
        "patch_sizes": [7, 3],
        "strides": [4, 2],
        "mlp_ratios": [2, 2],
        "decoder_hidden_size": 16,
        "num_labels": 4,
    }
    return _any_size(configured("SegformerForSemanticSegmentation", "SegformerConfig", **settings))


@case("transformers")
def glpn() -> Case:
    settings = {
        "hidden_sizes": [8, 8, 16, 16],
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 1, 2, 2],
        "decoder_hidden_size": 8,
    }
    return _sizes(configured("GLPNForDepthEstimation", "GLPNConfig", **settings))


@case("transformers")
def dpt() -> Case:
    settings = {
        **VISION,
        "num_hidden_layers": 4,
        "backbone_out_indices": [0, 1, 2, 3],
        "neck_hidden_sizes": [8, 8, 16, 16],
        "fusion_hidden_size": 8,
        "is_hybrid": False,
        "reassemble_factors": [4, 2, 1, 0.5],
    }
    made = _sizes(configured("DPTForDepthEstimation", "DPTConfig", **settings))
    del made.others["wide"]  # it takes squares alone
    return made


@case("transformers")
def clip() -> Case:
    transformers = library("transformers")
    config = transformers.CLIPConfig(
        text_config={**SMALL, "eos_token_id": 2}, vision_config=dict(VISION), projection_dim=16
    )
    model = transformers.CLIPModel(config).eval()

    def call(texts: int, length: int, pictures: int, end: int = -1) -> Inputs:
        tokens = ids(texts, length, 90)
        tokens[:, end] = 98
        return Inputs(input_ids=tokens, pixel_values=picture(pictures, 64, 64), attention_mask=mask(texts, length))

    return Case(
        model,
        call(2, 8, 2),
        {"more texts than pictures": call(5, 8, 2), "longer": call(2, 15, 1), "end earlier": call(2, 8, 2, 4)},
    )


@case("transformers")
def clip_segments() -> Case:
    transformers = library("transformers")
    config = transformers.CLIPSegConfig(
        text_config={**SMALL, "eos_token_id": 2},
        vision_config={**VISION, "num_hidden_layers": 3},
        projection_dim=16,
        extract_layers=[0, 1, 2],
        reduce_dim=16,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
    )
    model = transformers.CLIPSegForImageSegmentation(config).eval()

    def call(count: int, length: int, side: int = 64) -> Inputs:
        return Inputs(
            input_ids=ids(count, length),
            pixel_values=picture(count, side, side),
            attention_mask=mask(count, length),
            interpolate_pos_encoding=True,
        )

    return Case(model, call(2, 8), {"one": call(1, 8), "longer text": call(2, 13), "larger": call(2, 8, 96)})


@case("transformers")
def segment_anything() -> Case:
    """Points and boxes, one or many or none."""
    transformers = library("transformers")
    config = transformers.SamConfig(
        vision_config={
            "hidden_size": 16,
            "output_channels": 8,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 8,
            "window_size": 3,
            "global_attn_indexes": [1],
            "mlp_dim": 32,
            "num_pos_feats": 4,
        },
        prompt_encoder_config={"hidden_size": 8, "image_size": 64, "patch_size": 8, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 8,
            "mlp_dim": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 8,
        },
    )
    model = transformers.SamModel(config).eval()

    def points(batch: int, objects: int, count: int, **more: Any) -> Inputs:
        where = torch.rand(batch, objects, count, 2) * 64
        labels = torch.randint(0, 2, (batch, objects, count))
        return Inputs(pixel_values=picture(batch, 64, 64), input_points=where, input_labels=labels, **more)

    corner = torch.rand(1, 2, 2) * 30
    boxes = torch.cat([corner, corner + 20], -1)
    return Case(
        model,
        points(1, 1, 2),
        {
            "more points": points(1, 1, 5),
            "two pictures of three things": points(2, 3, 2),
            "one mask of each": points(1, 1, 2, multimask_output=False),
            "boxes": Inputs(pixel_values=picture(1, 64, 64), input_boxes=boxes),
        },
    )


def _timm(name: str, **settings: Any) -> Any:
    return library("timm").create_model(name, pretrained=False, num_classes=10, **settings).eval()


@case("timm")
def timm_swin() -> Case:
    settings = {"depths": (2, 2), "num_heads": (2, 4), "embed_dim": 16, "strict_img_size": False}
    return _sizes(_timm("swin_tiny_patch4_window7_224", img_size=56, **settings), 56)


@case("timm")
def timm_maxvit() -> Case:
    return Case(
        _timm("maxvit_rmlp_pico_rw_256", img_size=64),
        Inputs(picture(1, 64, 64)),
        {"three pictures": Inputs(picture(3, 64, 64)), "two pictures": Inputs(picture(2, 64, 64))},
    )


@case("timm")
def timm_mobilevit() -> Case:
    return _any_size(_timm("mobilevit_xxs"))


@case("timm")
def timm_efficientnet() -> Case:
    """Pads as TensorFlow does: by the size at hand."""
    return _any_size(_timm("tf_efficientnet_b0"))


@case("timm")
def timm_vit() -> Case:
    settings = {"img_size": 64, "dynamic_img_size": True, "depth": 2, "embed_dim": 32, "num_heads": 4}
    return _sizes(_timm("vit_tiny_patch16_224", **settings))


@case("timm")
def timm_twins() -> Case:
    settings = {"embed_dims": (16, 16, 32, 32), "num_heads": (1, 2, 4, 4), "depths": (1, 1, 2, 1), "wss": (4, 4, 4, 4)}
    return _any_size(_timm("twins_svt_small", **settings))


@case("timm")
def timm_coat() -> Case:
    return Case(
        _timm("coat_tiny", img_size=64),
        Inputs(picture(1, 64, 64)),
        {"three pictures": Inputs(picture(3, 64, 64)), "two pictures": Inputs(picture(2, 64, 64))},
    )


@case("timm")
def timm_volo() -> Case:
    return Case(
        _timm("volo_d1_224", img_size=64),
        Inputs(picture(1, 64, 64)),
        {"three pictures": Inputs(picture(3, 64, 64)), "two pictures": Inputs(picture(2, 64, 64))},
    )


def _segmentation(name: str, **settings: Any) -> Any:
    smp = library("segmentation_models_pytorch")
    return getattr(smp, name)("resnet18", encoder_weights=None, classes=3, **settings).eval()


@case("smp")
def smp_unet() -> Case:
    """Refuses a size that 32 does not divide; the classifier beside it has two outputs."""
    return _sizes(_segmentation("Unet", aux_params={"classes": 4}))


@case("smp")
def smp_pan() -> Case:
    return _sizes(_segmentation("PAN"), 128)


@case("smp")
def smp_deeplab() -> Case:
    return _sizes(_segmentation("DeepLabV3Plus"))


@case("smp")
def smp_upernet() -> Case:
    return _sizes(_segmentation("UPerNet"))
