"""Models of two texts, a source and a target: each has its length, and the source its mask."""

from hybridjit import Inputs

from .cases import Case, case
from .make import configured, ids, mask


def _both(model: object, source: int = 12, target: int = 5) -> Case:
    def call(batch: int, one: int, other: int, *padded: int) -> Inputs:
        return Inputs(
            input_ids=ids(batch, one),
            attention_mask=mask(batch, one, *padded),
            decoder_input_ids=ids(batch, other),
            use_cache=False,
        )

    return Case(
        model,
        call(2, source, target),
        {
            "longer source": call(1, 27, target),
            "longer target": call(2, source, 9),
            "padded, three": call(3, source, target, 0, 4, 2),
        },
    )


_SEQUENCES = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "vocab_size": 99,
}


@case("transformers")
def bart() -> Case:
    return _both(configured("BartForConditionalGeneration", "BartConfig", **_SEQUENCES, max_position_embeddings=64))


@case("transformers")
def bart_classifies() -> Case:
    """Picks the state at the end token, of which every text must have as many."""
    model = configured("BartForSequenceClassification", "BartConfig", **_SEQUENCES, max_position_embeddings=64)

    def call(batch: int, length: int, end: int) -> Inputs:
        tokens = ids(batch, length)
        tokens[:, end] = 2
        tokens[:, end + 1 :] = 1
        return Inputs(input_ids=tokens, attention_mask=(tokens != 1).long(), use_cache=False)

    return Case(model, call(2, 12, 11), {"ends early": call(2, 12, 6), "longer, one": call(1, 20, 19)})


@case("transformers")
def t5() -> Case:
    settings = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 99}
    return _both(configured("T5ForConditionalGeneration", "T5Config", **settings, decoder_start_token_id=0))


@case("transformers")
def longt5() -> Case:
    settings = {
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 4,
        "vocab_size": 99,
        "local_radius": 3,
        "global_block_size": 4,
        "encoder_attention_type": "transient-global",
    }
    return _both(configured("LongT5ForConditionalGeneration", "LongT5Config", **settings))


@case("transformers")
def led() -> Case:
    settings = {**_SEQUENCES, "attention_window": 4, "max_encoder_position_embeddings": 64}
    return _both(configured("LEDModel", "LEDConfig", **settings, max_decoder_position_embeddings=64))


@case("transformers")
def pegasus_x() -> Case:
    settings = {**_SEQUENCES, "block_size": 8, "num_global_tokens": 4, "max_position_embeddings": 64}
    return _both(configured("PegasusXModel", "PegasusXConfig", **settings))


@case("transformers")
def prophetnet() -> Case:
    settings = {
        "hidden_size": 32,
        "vocab_size": 99,
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
        "num_encoder_attention_heads": 4,
        "num_decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 64,
        "ngram": 2,
        "num_buckets": 8,
        "relative_max_distance": 16,
    }
    return _both(configured("ProphetNetModel", "ProphetNetConfig", **settings))
