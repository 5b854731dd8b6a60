"""Detectors: lists of pictures of several sizes, boxes whose number is found out, thresholds."""

from typing import Any

import torch
from torch import Tensor, nn

from hybridjit import Inputs

from .cases import Case, case
from .make import configured, library, picture, shade

_SMALL: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": 4, "min_size": 96, "max_size": 128}


def _detector(name: str, **settings: Any) -> Any:
    """With weights that make boxes of several sizes and scores, as trained ones do."""
    model = getattr(library("torchvision.models.detection"), name)(**settings).eval()
    for each in model.modules():
        if isinstance(each, nn.Linear):
            nn.init.normal_(each.weight, std=2 * each.in_features**-0.5)
        if hasattr(each, "bn3"):  # a block adds little, or sums grow until no score is near another
            nn.init.constant_(each.bn3.weight, 0.2)
    return model


def _second(result: Any) -> Any:
    """torch.jit.script gives losses, too, as torchvision documents."""
    return result[1]


def _pictures(model: Any) -> Case:
    return Case(
        model,
        Inputs([shade(96, 128)]),
        {
            "another size": Inputs([shade(110, 90)]),
            "another picture": Inputs([shade(96, 128) * 0.2]),
            "two of different sizes": Inputs([shade(96, 128), shade(80, 70)]),
        },
        _second,
    )


@case("torchvision")
def faster_rcnn() -> Case:
    settings = {**_SMALL, "box_score_thresh": 0.2, "rpn_pre_nms_top_n_test": 60, "rpn_post_nms_top_n_test": 20}
    return _pictures(_detector("fasterrcnn_mobilenet_v3_large_320_fpn", **settings))


@case("torchvision")
def mask_rcnn() -> Case:
    settings = {**_SMALL, "box_score_thresh": 0.2, "rpn_pre_nms_top_n_test": 40, "rpn_post_nms_top_n_test": 8}
    return _pictures(_detector("maskrcnn_resnet50_fpn", **settings, box_detections_per_img=5))


@case("torchvision")
def keypoint_rcnn() -> Case:
    settings = {
        **_SMALL,
        "num_classes": 2,
        "box_score_thresh": 0.0,
        "rpn_pre_nms_top_n_test": 40,
        "rpn_post_nms_top_n_test": 8,
    }
    return _pictures(_detector("keypointrcnn_resnet50_fpn", **settings, num_keypoints=5, box_detections_per_img=3))


@case("torchvision")
def retinanet() -> Case:
    settings = {**_SMALL, "score_thresh": 0.01, "topk_candidates": 30, "detections_per_img": 10}
    return _pictures(_detector("retinanet_resnet50_fpn", **settings))


@case("torchvision")
def fcos() -> Case:
    settings = {**_SMALL, "score_thresh": 0.01, "topk_candidates": 30, "detections_per_img": 10}
    return _pictures(_detector("fcos_resnet50_fpn", **settings))


@case("torchvision")
def ssd() -> Case:
    settings = {"weights": None, "weights_backbone": None, "num_classes": 4, "score_thresh": 0.1}
    return _pictures(_detector("ssdlite320_mobilenet_v3_large", **settings, topk_candidates=30, detections_per_img=10))


@case("torchvision")
def deeplab() -> Case:
    model = library("torchvision.models.segmentation").deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=4, aux_loss=True
    )
    return Case(
        model.eval(),
        Inputs(picture(1, 64, 64)),
        {"larger": Inputs(picture(1, 96, 80)), "two": Inputs(picture(2, 64, 64)), "odd": Inputs(picture(1, 63, 75))},
    )


@case("torchvision")
def swin_of_torchvision() -> Case:
    models = library("torchvision.models.swin_transformer")
    model = models.SwinTransformer(
        [4, 4], 16, [2, 2], [2, 4], [4, 4], num_classes=5, block=models.SwinTransformerBlockV2
    )
    return Case(
        model.eval(),
        Inputs(picture(1, 64, 64)),
        {
            "smaller than a window": Inputs(picture(1, 12, 12)),
            "wide": Inputs(picture(2, 64, 100)),
            "odd": Inputs(picture(1, 71, 90)),
        },
    )


@case("torchvision")
def raft() -> Case:
    """Optical flow; how often it is refined is said in the call."""
    flow = library("torchvision.models.optical_flow")
    model = flow.raft_small(weights=None).eval()

    def call(batch: int, height: int, width: int, rounds: int) -> Inputs:
        return Inputs(picture(batch, height, width), picture(batch, height, width), num_flow_updates=rounds)

    return Case(
        model,
        call(1, 128, 128, 2),
        {"larger": call(1, 136, 160, 2), "two": call(2, 128, 128, 2), "three rounds": call(1, 128, 128, 3)},
    )


_DETR: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_queries": 6,
    "num_labels": 4,
}


def _backbone(stages: int = 1) -> Any:
    transformers = library("transformers")
    names = [f"stage{4 - stages + 1 + index}" for index in range(stages)]
    return transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], layer_type="basic", out_features=names
    )


def _inside(batch: int, height: int, width: int, *missing: int) -> Tensor:
    """Where the picture is and not its padding."""
    result = torch.ones(batch, height, width, dtype=torch.long)
    for row, count in enumerate(missing):
        if count:
            result[row, :, -count:] = 0
    return result


def _masked(model: Any, side: int = 64) -> Case:
    def call(batch: int, height: int, width: int, *missing: int) -> Inputs:
        return Inputs(pixel_values=picture(batch, height, width), pixel_mask=_inside(batch, height, width, *missing))

    return Case(
        model,
        call(1, side, side),
        {
            "larger": call(1, side * 3 // 2, side * 2),
            "two, one padded": call(2, side, side, 0, 20),
            "without a mask": Inputs(pixel_values=picture(1, side, side)),
        },
    )


@case("transformers")
def detr() -> Case:
    settings = {**_DETR, "backbone_config": _backbone(), "use_timm_backbone": False, "backbone": None}
    return _masked(configured("DetrForObjectDetection", "DetrConfig", **settings))


@case("transformers")
def conditional_detr() -> Case:
    settings = {**_DETR, "backbone_config": _backbone(), "use_timm_backbone": False, "backbone": None}
    return _masked(configured("ConditionalDetrForObjectDetection", "ConditionalDetrConfig", **settings))


@case("transformers")
def deformable_detr() -> Case:
    settings = {**_DETR, "backbone_config": _backbone(3), "use_timm_backbone": False, "backbone": None}
    settings |= {"two_stage": True, "with_box_refine": True, "num_feature_levels": 4}
    return _masked(configured("DeformableDetrForObjectDetection", "DeformableDetrConfig", **settings), 128)


@case("transformers")
def rt_detr() -> Case:
    transformers = library("transformers")
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    settings = {
        "backbone_config": backbone,
        "encoder_hidden_dim": 32,
        "encoder_in_channels": [8, 16, 16],
        "feat_strides": [8, 16, 32],
        "encoder_ffn_dim": 32,
        "encoder_attention_heads": 4,
        "d_model": 32,
        "num_queries": 6,
        "decoder_in_channels": [32, 32, 32],
        "decoder_ffn_dim": 32,
        "decoder_layers": 2,
        "decoder_attention_heads": 4,
        "num_labels": 4,
        "hidden_expansion": 0.5,
        "use_pretrained_backbone": False,
    }
    model = configured("RTDetrForObjectDetection", "RTDetrConfig", **settings)
    return Case(
        model,
        Inputs(pixel_values=picture(1, 64, 64)),
        {
            "larger": Inputs(pixel_values=picture(1, 96, 128)),
            "two": Inputs(pixel_values=picture(2, 64, 64)),
        },
    )


@case("transformers")
def yolos() -> Case:
    settings = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "image_size": [64, 64],
        "patch_size": 8,
        "num_detection_tokens": 6,
        "num_labels": 4,
    }
    model = configured("YolosForObjectDetection", "YolosConfig", **settings)
    return Case(
        model,
        Inputs(picture(1, 64, 64)),
        {"larger": Inputs(picture(1, 80, 96)), "two": Inputs(picture(2, 64, 64)), "wide": Inputs(picture(1, 48, 120))},
    )


@case("transformers")
def mask_former() -> Case:
    transformers = library("transformers")
    config = transformers.MaskFormerConfig(
        backbone_config=transformers.SwinConfig(
            embed_dim=8,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 2, 2],
            window_size=4,
            image_size=64,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        ),
        decoder_config=transformers.DetrConfig(
            **_DETR, backbone_config=_backbone(), use_timm_backbone=False, backbone=None
        ),
        fpn_feature_size=32,
        mask_feature_size=32,
        num_labels=4,
    )
    return _masked(transformers.MaskFormerForInstanceSegmentation(config).eval())


@case("transformers")
def superpoint() -> Case:
    """Keypoints: their number is what the picture has, and the batch is padded to the most."""
    model = configured(
        "SuperPointForKeypointDetection",
        "SuperPointConfig",
        encoder_hidden_sizes=[8, 8, 8, 8],
        decoder_hidden_size=16,
        descriptor_decoder_dim=16,
        keypoint_threshold=0.0155,
    )
    return Case(
        model,
        Inputs(picture(1, 48, 48)),
        {
            "another picture": Inputs(picture(1, 48, 48)),
            "larger": Inputs(picture(1, 64, 80)),
            "two": Inputs(picture(2, 48, 48)),
        },
    )
