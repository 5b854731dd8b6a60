"""Language models of transformers: masks, windows, paddings to blocks, lengths, two sequences."""

import torch
from torch import Tensor

from hybridjit import Inputs

from .cases import Case, case
from .make import SMALL, configured, ids, mask


def _encoder(model: object, *, long: int = 20, longer: int = 33) -> Case:
    return Case(
        model,
        Inputs(input_ids=ids(2, 12), attention_mask=mask(2, 12)),
        {
            "longer, one text": Inputs(input_ids=ids(1, long), attention_mask=mask(1, long)),
            "padded": Inputs(input_ids=ids(2, 12), attention_mask=mask(2, 12, 0, 5)),
            "three texts, padded": Inputs(input_ids=ids(3, longer), attention_mask=mask(3, longer, 9, 0, 1)),
        },
    )


@case("transformers")
def bert() -> Case:
    return _encoder(configured("BertForSequenceClassification", "BertConfig", **SMALL, num_labels=3))


@case("transformers")
def deberta_v2() -> Case:
    settings = {**SMALL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}
    return _encoder(configured("DebertaV2Model", "DebertaV2Config", **settings))


@case("transformers")
def longformer() -> Case:
    made = _encoder(configured("LongformerModel", "LongformerConfig", **SMALL, attention_window=4))
    everywhere = torch.zeros(2, 12, dtype=torch.long)
    everywhere[:, 0] = 1
    made.others["one token seen by all"] = Inputs(input_ids=ids(2, 12), attention_mask=mask(2, 12) + everywhere)
    return made


@case("transformers")
def big_bird() -> Case:
    settings = {**SMALL, "block_size": 4, "num_random_blocks": 1, "max_position_embeddings": 128}
    model = configured("BigBirdModel", "BigBirdConfig", **settings)

    def call(batch: int, length: int, *padded: int) -> Inputs:
        return Inputs(input_ids=ids(batch, length), attention_mask=mask(batch, length, *padded))

    return Case(
        model,
        call(2, 48),
        {
            "padded": call(2, 48, 0, 9),
            "longer, padded to a block": call(1, 58),
            "short: full attention": call(2, 20),  # the last one, since from then on it always is
        },
    )


@case("transformers")
def nystromformer() -> Case:
    settings = {**SMALL, "num_landmarks": 4, "segment_means_seq_len": 16}
    model = configured("NystromformerModel", "NystromformerConfig", **settings)
    vectors = torch.randn(2, 16, 32)
    return Case(
        model,
        Inputs(ids(2, 16)),
        {"three texts": Inputs(ids(3, 16)), "one text": Inputs(ids(1, 16)), "vectors": Inputs(inputs_embeds=vectors)},
    )


@case("transformers")
def reformer() -> Case:
    model = configured(
        "ReformerModel",
        "ReformerConfig",
        attention_head_size=8,
        attn_layers=["local", "lsh"],
        axial_pos_embds=False,
        hidden_size=32,
        feed_forward_size=64,
        num_attention_heads=4,
        num_buckets=4,
        local_attn_chunk_length=4,
        lsh_attn_chunk_length=4,
        max_position_embeddings=64,
        vocab_size=99,
        hash_seed=0,
        is_decoder=False,
        pad_token_id=0,
        eos_token_id=2,
        use_cache=False,
    )
    return _encoder(model)


@case("transformers")
def funnel() -> Case:
    settings = {
        "vocab_size": 99,
        "block_sizes": [1, 1],
        "d_model": 32,
        "n_head": 4,
        "d_head": 8,
        "d_inner": 64,
        "num_decoder_layers": 1,
    }
    return _encoder(configured("FunnelModel", "FunnelConfig", **settings))


@case("transformers")
def xlnet() -> Case:
    settings = {"vocab_size": 99, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "use_mems_eval": False}
    return _encoder(configured("XLNetModel", "XLNetConfig", **settings))


@case("transformers")
def canine() -> Case:
    settings = {
        **{key: value for key, value in SMALL.items() if key != "vocab_size"},
        "num_hash_buckets": 64,
        "local_transformer_stride": 8,
    }
    return _encoder(configured("CanineModel", "CanineConfig", **settings), long=24, longer=40)


@case("transformers")
def modernbert() -> Case:
    settings = {
        **SMALL,
        "local_attention": 8,
        "global_attn_every_n_layers": 2,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
    }
    return _encoder(configured("ModernBertModel", "ModernBertConfig", **settings))


@case("transformers")
def layoutlm() -> Case:
    model = configured("LayoutLMForTokenClassification", "LayoutLMConfig", **SMALL, num_labels=5)

    def call(batch: int, length: int, *padded: int) -> Inputs:
        corner = torch.randint(0, 500, (batch, length, 2))
        boxes = torch.cat([corner, corner + torch.randint(0, 400, (batch, length, 2))], -1)
        return Inputs(input_ids=ids(batch, length), bbox=boxes, attention_mask=mask(batch, length, *padded))

    return Case(
        model, call(2, 12), {"longer": call(1, 20), "padded": call(2, 12, 3), "without boxes": _without(call(2, 12))}
    )


def _without(call: Inputs) -> Inputs:
    return Inputs(**{key: value for key, value in call.kwargs.items() if key != "bbox"})


@case("transformers")
def tapas() -> Case:
    settings = {**SMALL, "type_vocab_sizes": [3, 16, 16, 2, 2, 8, 2], "max_num_rows": 8, "max_num_columns": 8}
    model = configured("TapasForQuestionAnswering", "TapasConfig", **settings)

    def call(batch: int, rows: int, columns: int) -> Inputs:
        question = torch.zeros(batch, 4, 7, dtype=torch.long)
        cells = torch.zeros(batch, rows * columns, 7, dtype=torch.long)
        cells[..., 0] = 1
        cells[..., 1] = torch.arange(columns).repeat(rows) + 1
        cells[..., 2] = torch.arange(rows).repeat_interleave(columns) + 1
        kinds = torch.cat([question, cells], 1)
        length = kinds.shape[1]
        return Inputs(input_ids=ids(batch, length), attention_mask=mask(batch, length), token_type_ids=kinds)

    return Case(model, call(2, 3, 2), {"more columns": call(2, 2, 5), "one table": call(1, 6, 2)})


def _decoder(model: object) -> Case:
    return Case(
        model,
        Inputs(input_ids=ids(2, 12), attention_mask=mask(2, 12), use_cache=False),
        {
            "longer, one text": Inputs(input_ids=ids(1, 21), attention_mask=mask(1, 21), use_cache=False),
            "padded": Inputs(input_ids=ids(2, 12), attention_mask=mask(2, 12, 0, 4), use_cache=False),
            "shorter than the window": Inputs(input_ids=ids(2, 3), attention_mask=mask(2, 3), use_cache=False),
        },
    )


@case("transformers")
def gpt2() -> Case:
    settings = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99, "n_positions": 64}
    made = _decoder(configured("GPT2LMHeadModel", "GPT2Config", **settings))
    made.others["only the last token"] = Inputs(
        input_ids=ids(2, 12), attention_mask=mask(2, 12), use_cache=False, logits_to_keep=1
    )
    return made


@case("transformers")
def gpt2_classifies() -> Case:
    """Looks for the last token that is no padding."""
    settings = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99, "n_positions": 64, "pad_token_id": 0}
    model = configured("GPT2ForSequenceClassification", "GPT2Config", **settings)
    ends = ids(3, 12)
    ends[0, 5:] = 0
    ends[2, 9:] = 0
    return Case(
        model,
        Inputs(input_ids=ids(2, 12), use_cache=False),
        {
            "ends before the others": Inputs(input_ids=ends, use_cache=False),
            "longer": Inputs(input_ids=ids(1, 20), use_cache=False),
        },
    )


@case("transformers")
def mistral() -> Case:
    return _decoder(configured("MistralForCausalLM", "MistralConfig", **SMALL, num_key_value_heads=2, sliding_window=6))


@case("transformers")
def gemma2() -> Case:
    settings = {**SMALL, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 8}
    return _decoder(configured("Gemma2ForCausalLM", "Gemma2Config", **settings))


@case("transformers")
def phi3_long() -> Case:
    """Other rotations for texts longer than those it was first trained on."""
    settings = {
        **SMALL,
        "num_key_value_heads": 4,
        "max_position_embeddings": 64,
        "original_max_position_embeddings": 16,
        "pad_token_id": 0,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 4,
            "long_factor": [2.0] * 4,
            "original_max_position_embeddings": 16,
            "factor": 4.0,
        },
    }
    return _decoder(configured("Phi3ForCausalLM", "Phi3Config", **settings))


@case("transformers")
def mixtral() -> Case:
    settings = {**SMALL, "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2}
    return _decoder(configured("MixtralForCausalLM", "MixtralConfig", **settings))


@case("transformers")
def mamba() -> Case:
    settings = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "vocab_size": 99, "time_step_rank": 4}
    model = configured("MambaForCausalLM", "MambaConfig", **settings)
    return Case(
        model,
        Inputs(input_ids=ids(2, 6), use_cache=False),
        {
            "longer": Inputs(input_ids=ids(1, 9), use_cache=False),
            "shorter": Inputs(input_ids=ids(2, 3), use_cache=False),
        },
    )


@case("transformers")
def perceiver() -> Case:
    settings = {
        "num_latents": 8,
        "d_latents": 32,
        "d_model": 32,
        "num_self_attends_per_block": 2,
        "num_self_attention_heads": 4,
        "num_cross_attention_heads": 4,
        "vocab_size": 99,
        "max_position_embeddings": 24,
    }
    transformers_model = configured("PerceiverForMaskedLM", "PerceiverConfig", **settings)

    def call(batch: int, *padded: int) -> Inputs:
        return Inputs(inputs=ids(batch, 24), attention_mask=mask(batch, 24, *padded))

    return Case(transformers_model, call(2), {"padded": call(2, 0, 7), "three": call(3)})


@case("transformers")
def dpr_pairs() -> Case:
    """Takes text as vectors instead of tokens, too."""
    model = configured("DPRQuestionEncoder", "DPRConfig", **SMALL, projection_dim=16)
    vectors: Tensor = torch.randn(2, 9, 32)
    return Case(
        model,
        Inputs(input_ids=ids(2, 12)),
        {
            "padding among the tokens": Inputs(input_ids=ids(2, 12) * mask(2, 12, 4)),
            "longer": Inputs(input_ids=ids(3, 17)),
            "vectors": Inputs(inputs_embeds=vectors),
        },
    )
