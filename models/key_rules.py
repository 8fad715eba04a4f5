"""The key rules: how each checkpoint as published becomes the names of our networks. Tables, in order.

SAM, Grounding DINO and CLAP run on the classes of `transformers`, whose names differ from the original
packages'. AudioCLIP is our own and keeps its authors' names; AC-FPN's authors saved both towers twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from models.checkpoints import Rules

SAM = Rules(
    drop=(r"^pixel_(mean|std)$",),
    rename=(
        (r"^image_encoder\.", "vision_encoder."),
        (r"\.blocks\.", ".layers."),
        (r"\.norm", ".layer_norm"),
        (r"patch_embed\.proj\.", "patch_embed.projection."),
        (r"neck\.0\.", "neck.conv1."),
        (r"neck\.1\.", "neck.layer_norm1."),
        (r"neck\.2\.", "neck.conv2."),
        (r"neck\.3\.", "neck.layer_norm2."),
        (r"point_embeddings\.", "point_embed."),
        (
            r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$",
            "shared_image_embedding.positional_embedding",
        ),
        (r"mask_downscaling\.0\.", "mask_embed.conv1."),
        (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
        (r"mask_downscaling\.3\.", "mask_embed.conv2."),
        (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
        (r"mask_downscaling\.6\.", "mask_embed.conv3."),
        (r"output_upscaling\.0\.", "upscale_conv1."),
        (r"output_upscaling\.1\.", "upscale_layer_norm."),
        (r"output_upscaling\.3\.", "upscale_conv2."),
        (r"(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.layers\.0\.", r"\1.proj_in."),
        (r"(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.layers\.1\.", r"\1.layers.0."),
        (r"(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.layers\.2\.", r"\1.proj_out."),
    ),
)

CLAP = Rules(
    drop=(
        r"^(text|audio)_transform\.",
        r"(spectrogram|logmel)_extractor\.",
        r"\.tscam_conv\.",
        r"^audio_branch\.head\.",
        r"attn_mask$",
        r"(position_ids|token_type_ids|relative_position_index)$",
    ),
    split=(
        (
            r"^(audio_branch\..*\.attn)\.qkv\.",
            (r"\1.query.", r"\1.key.", r"\1.value."),
        ),
    ),
    rename=(
        (r"^text_branch\.", "text_model."),
        (r"^audio_branch\.", "audio_model.audio_encoder."),
        (r"\.bn0\.", ".batch_norm."),
        (r"\.attn\.proj\.", ".attention.output.dense."),
        (r"\.attn\.", ".attention.self."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
        (r"\.norm1\.", ".layernorm_before."),
        (r"\.norm2\.", ".layernorm_after."),
        (r"_projection\.0\.", "_projection.linear1."),
        (r"_projection\.2\.", "_projection.linear2."),
    ),
)

_SWIN = "model.backbone.conv_encoder.model"
_ENCODER = r"^transformer\.encoder"
_FUSION = r"model.encoder.layers.\1.fusion_layer"
_DECODER = r"^(model\.decoder\.layers\.\d+)"

GROUNDING_DINO = Rules(
    drop=(
        r"relative_position_index$",
        r"position_ids$",
        r"^bert\.pooler\.",
        r"^label_enc\.",  # only the denoising of training reads it
    ),
    split=(
        (
            r"^backbone\.0\.(.*)\.attn\.qkv\.",
            tuple(rf"backbone.0.\1.attention.{part}_proj." for part in "qkv"),
        ),
        (
            r"\.in_proj_(weight|bias)$",
            tuple(rf".{part}.\1" for part in ("query", "key", "value")),
        ),
    ),
    rename=(
        # The image backbone: backbone.0 is Swin, and norm1..3 follow the stages that are used.
        (r"^backbone\.0\.norm1\.", f"{_SWIN}.hidden_states_norms.stage2."),
        (r"^backbone\.0\.norm2\.", f"{_SWIN}.hidden_states_norms.stage3."),
        (r"^backbone\.0\.norm3\.", f"{_SWIN}.hidden_states_norms.stage4."),
        (r"^backbone\.0\.patch_embed\.proj\.", f"{_SWIN}.swin.embeddings.patch_embeddings.projection."),
        (r"^backbone\.0\.patch_embed\.norm\.", f"{_SWIN}.swin.embeddings.norm."),
        (
            r"^backbone\.0\.(.*)\.attn\.relative_position_bias_table$",
            r"backbone.0.\1.attention.relative_position_bias.relative_position_bias_table",
        ),
        (r"^backbone\.0\.(.*)\.attn\.proj\.", r"backbone.0.\1.attention.o_proj."),
        (r"^backbone\.0\.(.*)\.norm1\.", r"backbone.0.\1.layernorm_before."),
        (r"^backbone\.0\.(.*)\.norm2\.", r"backbone.0.\1.layernorm_after."),
        (r"^backbone\.0\.layers\.", f"{_SWIN}.swin.encoder.layers."),
        (r"^input_proj\.", "model.input_proj_vision."),
        # The text side.
        (r"^bert\.", "model.text_backbone."),
        (r"^feat_map\.", "model.text_projection."),
        # The encoder: three lists of layers there, one list of three-part layers here.
        (
            _ENCODER + r"\.layers\.(\d+)\.norm1\.",
            r"model.encoder.layers.\1.deformable_layer.self_attn_layer_norm.",
        ),
        (
            _ENCODER + r"\.layers\.(\d+)\.norm2\.",
            r"model.encoder.layers.\1.deformable_layer.final_layer_norm.",
        ),
        (_ENCODER + r"\.layers\.(\d+)\.", r"model.encoder.layers.\1.deformable_layer."),
        (
            _ENCODER + r"\.text_layers\.(\d+)\.norm1\.",
            r"model.encoder.layers.\1.text_enhancer_layer.layer_norm_before.",
        ),
        (
            _ENCODER + r"\.text_layers\.(\d+)\.norm2\.",
            r"model.encoder.layers.\1.text_enhancer_layer.layer_norm_after.",
        ),
        (_ENCODER + r"\.text_layers\.(\d+)\.", r"model.encoder.layers.\1.text_enhancer_layer."),
        (_ENCODER + r"\.fusion_layers\.(\d+)\.gamma_v$", _FUSION + ".vision_param"),
        (_ENCODER + r"\.fusion_layers\.(\d+)\.gamma_l$", _FUSION + ".text_param"),
        (_ENCODER + r"\.fusion_layers\.(\d+)\.layer_norm_v\.", _FUSION + ".layer_norm_vision."),
        (_ENCODER + r"\.fusion_layers\.(\d+)\.layer_norm_l\.", _FUSION + ".layer_norm_text."),
        (
            _ENCODER + r"\.fusion_layers\.(\d+)\.attn\.(values_|out_|)v_proj\.",
            _FUSION + r".attn.\2vision_proj.",
        ),
        (
            _ENCODER + r"\.fusion_layers\.(\d+)\.attn\.(values_|out_|)l_proj\.",
            _FUSION + r".attn.\2text_proj.",
        ),
        # The decoder: its norms are numbered in the order of training's code, not of use.
        (r"^transformer\.decoder\.", "model.decoder."),
        (_DECODER + r"\.cross_attn\.", r"\1.encoder_attn."),
        (_DECODER + r"\.ca_text\.", r"\1.encoder_attn_text."),
        (_DECODER + r"\.catext_norm\.", r"\1.encoder_attn_text_layer_norm."),
        (_DECODER + r"\.norm1\.", r"\1.encoder_attn_layer_norm."),
        (_DECODER + r"\.norm2\.", r"\1.self_attn_layer_norm."),
        (_DECODER + r"\.norm3\.", r"\1.final_layer_norm."),
        (r"^model\.decoder\.norm\.", "model.decoder.layer_norm."),
        (r"^model\.decoder\.ref_point_head\.", "model.decoder.reference_points_head."),
        # One box head, listed under every layer of two modules.
        (r"^(model\.decoder\.)?bbox_embed\.\d+\.", "bbox_embed.0."),
        # What lies between.
        (r"^transformer\.tgt_embed\.", "model.query_position_embeddings."),
        (r"^transformer\.enc_out_bbox_embed\.", "model.encoder_output_bbox_embed."),
        (r"^transformer\.(level_embed|enc_output)", r"model.\1"),
        (r"\.linear([12])\.", r".fc\1."),
    ),
)

AC_FPN = Rules(
    rename=(
        (r"^visual_encoder\.", "aclp.visual."),
        (r"^audio_encoder\.", "aclp.audio."),
    ),
)

TPAVI = Rules()  # our names are its authors'
VGGISH = Rules()

RULES: Mapping[str, Rules] = MappingProxyType(
    {
        "audioclip": Rules(),
        "ac-fpn": AC_FPN,
        "tpavi": TPAVI,
        "vggish": VGGISH,
        "sam": SAM,
        "grounding-dino": GROUNDING_DINO,
        "clap": CLAP,
    }
)
