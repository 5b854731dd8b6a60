"""Sound and series: lengths after strides, masks, recurrences, how far to look ahead."""

from typing import Any

import torch
from torch import Tensor

from hybridjit import Inputs

from .cases import Case, case
from .make import configured, mask

_WAVES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 3, 3),
    "conv_stride": (5, 2, 2),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 20,
    "apply_spec_augment": False,
}


def _waves(model: Any) -> Case:
    return Case(
        model,
        Inputs(torch.randn(2, 1600), attention_mask=mask(2, 1600)),
        {
            "longer, one": Inputs(torch.randn(1, 2500), attention_mask=mask(1, 2500)),
            "padded": Inputs(torch.randn(2, 1600), attention_mask=mask(2, 1600, 0, 700)),
            "three, padded": Inputs(torch.randn(3, 1111), attention_mask=mask(3, 1111, 100, 0, 5)),
            "without a mask": Inputs(torch.randn(2, 1600)),
        },
    )


@case("transformers")
def wav2vec2_ctc() -> Case:
    return _waves(configured("Wav2Vec2ForCTC", "Wav2Vec2Config", **_WAVES))


@case("transformers")
def wavlm() -> Case:
    return _waves(configured("WavLMForCTC", "WavLMConfig", **_WAVES, num_buckets=16, max_bucket_distance=32))


@case("transformers")
def sew() -> Case:
    return _waves(configured("SEWForCTC", "SEWConfig", **_WAVES, squeeze_factor=2))


@case("transformers")
def whisper() -> Case:
    model = configured(
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        vocab_size=99,
        num_mel_bins=16,
        max_source_positions=40,
        max_target_positions=40,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )

    def call(batch: int, length: int) -> Inputs:
        return Inputs(
            input_features=torch.randn(batch, 16, 80),
            decoder_input_ids=torch.randint(3, 99, (batch, length)),
            use_cache=False,
        )

    return Case(model, call(1, 5), {"longer text": call(1, 11), "two": call(2, 5), "one token": call(1, 1)})


@case("transformers")
def speech_to_text() -> Case:
    model = configured(
        "Speech2TextModel",
        "Speech2TextConfig",
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        vocab_size=99,
        input_feat_per_channel=16,
        conv_channels=16,
        max_source_positions=100,
        max_target_positions=40,
    )

    def call(batch: int, frames: int, length: int, *padded: int) -> Inputs:
        return Inputs(
            input_features=torch.randn(batch, frames, 16),
            attention_mask=mask(batch, frames, *padded),
            decoder_input_ids=torch.randint(3, 99, (batch, length)),
            use_cache=False,
        )

    return Case(
        model,
        call(2, 60, 5),
        {"longer": call(1, 83, 5), "padded": call(2, 60, 5, 0, 21), "longer text": call(2, 60, 9)},
    )


@case("transformers")
def spectrogram() -> Case:
    model = configured(
        "ASTForAudioClassification",
        "ASTConfig",
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_length=48,
        num_mel_bins=32,
        patch_size=8,
        frequency_stride=6,
        time_stride=6,
        num_labels=4,
    )
    return Case(
        model,
        Inputs(torch.randn(1, 48, 32)),
        {"two": Inputs(torch.randn(2, 48, 32)), "five": Inputs(torch.randn(5, 48, 32))},
    )


@case("transformers")
def fastspeech() -> Case:
    """Speech whose length is what the model finds for each letter."""
    model = configured(
        "FastSpeech2ConformerModel",
        "FastSpeech2ConformerConfig",
        hidden_size=16,
        vocab_size=40,
        num_mel_bins=8,
        encoder_num_attention_heads=2,
        encoder_layers=1,
        encoder_linear_units=32,
        decoder_layers=1,
        decoder_num_attention_heads=2,
        decoder_linear_units=32,
        speech_decoder_postnet_layers=2,
        speech_decoder_postnet_units=16,
        duration_predictor_channels=16,
        energy_predictor_channels=16,
        pitch_predictor_channels=16,
    )
    torch.nn.init.constant_(model.duration_predictor.linear.bias, 1.2)

    def call(batch: int, length: int) -> Inputs:
        return Inputs(input_ids=torch.randint(3, 40, (batch, length)), attention_mask=mask(batch, length))

    return Case(model, call(1, 9), {"another text": call(1, 9), "longer": call(1, 14), "two": call(2, 9)})


@case("transformers")
def encodec() -> Case:
    model = configured(
        "EncodecModel",
        "EncodecConfig",
        num_filters=4,
        hidden_size=8,
        codebook_dim=8,
        codebook_size=16,
        upsampling_ratios=[4, 2],
        num_lstm_layers=1,
        target_bandwidths=[24.0, 48.0],
    )

    def call(batch: int, length: int, bandwidth: float = 24.0) -> Inputs:
        return Inputs(torch.randn(batch, 1, length), bandwidth=bandwidth)

    return Case(
        model, call(1, 400), {"longer": call(1, 533), "two": call(2, 400), "another bandwidth": call(1, 400, 48.0)}
    )


@case("transformers")
def patchtst() -> Case:
    model = configured(
        "PatchTSTForPrediction",
        "PatchTSTConfig",
        num_input_channels=2,
        context_length=32,
        patch_length=8,
        patch_stride=8,
        d_model=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=32,
        prediction_length=8,
    )

    def call(batch: int, *missing: int) -> Inputs:
        seen = torch.ones(batch, 32, 2)
        for row, count in enumerate(missing):
            seen[row, :count] = 0
        return Inputs(past_values=torch.randn(batch, 32, 2) * 3, past_observed_mask=seen)

    return Case(model, call(2), {"missing": call(2, 0, 9), "three": call(3), "one": call(1)})


def _series(model: str, config: str, **settings: Any) -> Case:
    made = configured(
        model,
        config,
        prediction_length=6,
        context_length=12,
        lags_sequence=[1, 2, 3],
        num_time_features=2,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        scaling="mean",
        **settings,
    )

    def call(batch: int, missing: int = 0, level: float = 1.0) -> Inputs:
        seen: Tensor = torch.ones(batch, 15)
        if missing:
            seen[0, :missing] = 0
        return Inputs(
            past_values=torch.randn(batch, 15) * level,
            past_time_features=torch.randn(batch, 15, 2),
            past_observed_mask=seen,
            future_values=torch.randn(batch, 6),
            future_time_features=torch.randn(batch, 6, 2),
            use_cache=False,
        )

    return Case(made, call(2), {"missing": call(2, 7), "three": call(3), "nothing but zeros": call(2, 0, 0.0)})


@case("transformers")
def time_series() -> Case:
    return _series("TimeSeriesTransformerModel", "TimeSeriesTransformerConfig")


@case("transformers")
def informer() -> Case:
    return _series("InformerModel", "InformerConfig", distil=False, sampling_factor=1)


@case("transformers")
def autoformer() -> Case:
    return _series("AutoformerModel", "AutoformerConfig", label_length=4, moving_average=3, autocorrelation_factor=1)
