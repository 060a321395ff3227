"""What the calls of a traced module become that are not one operator of the table: by their names in ATen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from compress.load.calls.arithmetic import arithmetic, largest, negated, powered, reduced
from compress.load.calls.attention import dot_product_attention, masked, product, softmax
from compress.load.calls.call import Called, Value, same
from compress.load.calls.dimensions import (
    concat,
    dropped,
    expanded,
    filled,
    getitem,
    permuted,
    picked,
    pieces,
    repeated,
    reshaped,
    rolled,
    selected,
    sliced,
    stacked,
)
from compress.load.calls.layers import (
    batch_norm,
    convolution,
    group_norm,
    instance_norm,
    layer_norm,
    linear,
    nearest,
    padded,
    pixels_shuffled,
    pooled,
    prelu,
    resized,
    shuffled,
    unpooled,
)

if TYPE_CHECKING:
    from compress.load.walk import Walk

    Rule = Callable[[Walk, Called], Value]


def _named(names: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


CALLS: Mapping[str, Rule] = {
    **_named("dropout.default dropout_.default feature_dropout.default feature_dropout_.default", dropped),
    **_named(
        "clone.default contiguous.default detach.default alias.default lift_fresh_copy.default to.dtype to.device "
        "to.dtype_layout _to_copy.default type_as.default",
        same,
    ),
    **_named(
        "view.default reshape.default _unsafe_view.default flatten.using_ints unflatten.int unsqueeze.default "
        "squeeze.dim squeeze.dims squeeze.default",
        reshaped,
    ),
    **_named("permute.default transpose.int t.default swapaxes.default", permuted),
    **_named("expand.default expand_as.default", expanded),
    **_named("repeat.default", repeated),
    **_named("new_zeros.default zeros_like.default new_ones.default ones_like.default", filled),
    **_named("chunk.default split.Tensor split_with_sizes.default tensor_split.sections unbind.int", pieces),
    **_named("slice.Tensor narrow.default", sliced),
    **_named("select.int", selected),
    **_named("flip.default index.Tensor", picked),
    **_named("getitem", getitem),
    **_named("cat.default concat.default", concat),
    **_named("stack.default", stacked),
    **_named("add.Tensor add_.Tensor", arithmetic("add")),
    **_named("sub.Tensor sub_.Tensor", arithmetic("sub")),
    **_named("rsub.Scalar", arithmetic("rsub")),
    **_named("mul.Tensor mul_.Tensor", arithmetic("mul")),
    **_named("div.Tensor div_.Tensor", arithmetic("div")),
    **_named("pow.Tensor_Scalar", powered),
    **_named("neg.default", negated),
    **_named("batch_norm.default _native_batch_norm_legit_no_training.default", batch_norm),
    **_named("instance_norm.default", instance_norm),
    **_named("group_norm.default", group_norm),
    **_named("layer_norm.default", layer_norm),
    **_named("prelu.default", prelu),
    **_named("mean.dim", reduced(lambda count: 1.0)),
    **_named("sum.dim_IntList", reduced(float)),
    **_named("max.dim amax.default", largest),
    **_named("softmax.int", softmax),
    **_named("masked_fill.Scalar masked_fill_.Scalar", masked),
    **_named("linear.default", linear),
    **_named("convolution.default _convolution.default conv1d.default", convolution),
    **_named("max_pool2d_with_indices.default", pooled),
    **_named("max_unpool2d.default", unpooled),
    **_named("channel_shuffle.default", shuffled),
    **_named("pixel_shuffle.default pixel_unshuffle.default", pixels_shuffled),
    **_named("_upsample_nearest_exact2d.vec _upsample_nearest_exact2d.default", nearest),
    **_named("roll.default", rolled),
    **_named("matmul.default bmm.default", product),
    **_named("scaled_dot_product_attention.default", dot_product_attention),
    **_named(
        "upsample_bilinear2d.vec upsample_bilinear2d.default upsample_nearest2d.vec upsample_nearest2d.default "
        "upsample_bicubic2d.vec upsample_bicubic2d.default",
        resized,
    ),
    **_named("pad.default constant_pad_nd.default", padded),
}
