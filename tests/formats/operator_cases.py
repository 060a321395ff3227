"""One small graph for every operator and every way of padding it that the two formats tell apart."""

from collections.abc import Callable

import unary_cases
from integer_reference import GraphBuilder


def after_conv(build: Callable[[GraphBuilder, str], object], **more) -> Callable[[GraphBuilder], object]:
    """The operator in question reads the result of a convolution, which all runtimes compute exactly."""
    return lambda b: build(b, b.conv("image", 8, **more))


def _unary(name: str, case: str) -> Callable[[GraphBuilder, str], object]:
    return lambda b, x: b.one(name, x, attrs=unary_cases.UNARY[name].attrs[case])


def _unpooled(b: GraphBuilder, **more) -> str:
    """Of a map of even sides; rectified, many of its windows hold nothing but zeros."""
    x = b.conv("image", 8, kernel=tuple(1 + size % 2 for size in b.size), padding=(0, 0), **more)
    return b.unpool(b.conv(b.pool("max_pool", x), 8), x)


CASES: dict[str, Callable[[GraphBuilder], object]] = {
    "conv": lambda b: b.conv("image", 8),
    "conv_1x1": lambda b: b.conv("image", 8, kernel=(1, 1), padding=(0, 0)),
    "conv_unpadded": lambda b: b.conv("image", 8, kernel=(5, 5), padding=(0, 0)),
    "conv_oblong": lambda b: b.conv("image", 8, kernel=(3, 1), padding=(1, 0)),
    "conv_overpadded": lambda b: b.conv("image", 8, kernel=(1, 1), padding=(1, 1)),
    "conv_stride_2": lambda b: b.conv("image", 8, stride=(2, 2)),
    "conv_stride_2_7x7": lambda b: b.conv("image", 8, kernel=(7, 7), stride=(2, 2), padding=(3, 3)),
    "conv_stride_1_2": lambda b: b.conv("image", 8, stride=(1, 2)),
    "conv_dilated": lambda b: b.conv("image", 8, padding=(4, 4), dilation=(4, 4)),
    "conv_dilated_stride_2": lambda b: b.conv("image", 8, padding=(2, 2), dilation=(2, 2), stride=(2, 2)),
    "conv_relu": lambda b: b.conv("image", 8, activation="relu"),
    "conv_relu6": lambda b: b.conv("image", 8, activation="relu6"),
    "conv_grouped": after_conv(lambda b, x: b.conv(x, 8, groups=2)),
    "conv_depthwise": after_conv(lambda b, x: b.conv(x, 8, groups=8)),
    "conv_depthwise_doubling": after_conv(lambda b, x: b.conv(x, 16, groups=8)),
    "conv_depthwise_stride_2": after_conv(lambda b, x: b.conv(x, 8, groups=8, stride=(2, 2))),
    "conv_depthwise_dilated": after_conv(lambda b, x: b.conv(x, 8, groups=8, padding=(2, 2), dilation=(2, 2))),
    "conv_transpose": after_conv(lambda b, x: b.conv_transpose(x, 4)),
    "conv_transpose_relu": after_conv(lambda b, x: b.conv_transpose(x, 4, activation="relu")),
    "conv_transpose_3_2_1_1": after_conv(
        lambda b, x: b.conv_transpose(x, 4, kernel=(3, 3), padding=(1, 1), output_padding=(1, 1))
    ),
    "conv_transpose_3_2_1_0": after_conv(lambda b, x: b.conv_transpose(x, 4, kernel=(3, 3), padding=(1, 1))),
    "conv_transpose_4_2_1_0": after_conv(lambda b, x: b.conv_transpose(x, 4, kernel=(4, 4), padding=(1, 1))),
    "conv_transpose_3_2_0_1": after_conv(
        lambda b, x: b.conv_transpose(x, 4, kernel=(3, 3), padding=(0, 0), output_padding=(1, 1))
    ),
    "conv_transpose_3_1_1_0": after_conv(
        lambda b, x: b.conv_transpose(x, 4, kernel=(3, 3), stride=(1, 1), padding=(1, 1))
    ),
    "add": after_conv(lambda b, x: b.join("add", x, b.conv("image", 8))),
    "add_relu": after_conv(lambda b, x: b.join("add", x, b.conv("image", 8), activation="relu")),
    "add_broadcast": after_conv(lambda b, x: b.join("add", x, b.one("mean", x))),
    "sub": after_conv(lambda b, x: b.join("sub", x, b.conv("image", 8))),
    "sub_relu": after_conv(lambda b, x: b.join("sub", x, b.conv("image", 8), activation="relu")),
    "instance_norm": after_conv(lambda b, x: b.one("instance_norm", x, attrs={"eps": 1e-5})),
    "group_norm": after_conv(lambda b, x: b.one("group_norm", x, attrs={"eps": 1e-5, "groups": 2})),
    "layer_norm": after_conv(lambda b, x: b.one("layer_norm", x, attrs={"eps": 1e-6})),
    "attention": after_conv(lambda b, x: b.attention(x, b.conv("image", 8), b.conv("image", 4), heads=2)),
    "attention_reduced": after_conv(
        lambda b, x: b.attention(x, b.conv("image", 8, stride=(4, 4)), b.conv("image", 8, stride=(4, 4)), heads=4)
    ),
    "attention_in_rows": after_conv(lambda b, x: b.attention(x, b.conv("image", 8), b.conv("image", 4), 2, rows=True)),
    "attention_in_windows": after_conv(
        lambda b, x: b.attention(
            x, x, x, 2, rows=True, added=((1, 2, b.size[1], b.size[1]), (b.size[0], 1, b.size[1], b.size[1]))
        )
    ),
    "attention_over_pairs": after_conv(
        lambda b, x: b.attention(*[b.pool("max_pool", x, kernel=(4, 4), stride=(4, 4))] * 3, 1, over="pairs")
    ),
    "attention_without_softmax": after_conv(lambda b, x: b.attention(x, x, x, 2, over="nothing")),
    "roll": after_conv(lambda b, x: b.one("roll", x, attrs={"down": -3, "right": 4})),
    "channel_max": after_conv(lambda b, x: b.one("channel_max", x)),
    "local_affine": after_conv(lambda b, x: b.local(x, (8, 1, b.size[1]), (1, *b.size))),
    "unpool": lambda b: _unpooled(b),
    "unpool_rectified": lambda b: _unpooled(b, activation="relu"),
    "arrange_to_windows": after_conv(
        lambda b, x: b.arrange(b.resize(x, (8, 12)), (8,), (2, 4), (3, 4), ((0,), (1, 3), (2, 4)), op="arrange_pixels")
    ),
    "arrange_to_tokens": after_conv(
        lambda b, x: b.arrange(x, (8,), b.size[:1], b.size[1:], ((0,), (), (1, 2)), op="arrange_pixels")
    ),
    "arrange_shuffled_pixels": after_conv(
        lambda b, x: b.arrange(x, (2, 2, 2), b.size[:1], b.size[1:], ((0,), (3, 1), (4, 2)))
    ),
    "arrange_unshuffled_pixels": after_conv(
        lambda b, x: b.arrange(b.resize(x, (8, 12)), (8,), (4, 2), (6, 2), ((0, 2, 4), (1,), (3,)))
    ),
    "arrange_channels_as_pixels": after_conv(
        lambda b, x: b.arrange(x, (8,), b.size[:1], b.size[1:], ((1, 2), (), (0,)))
    ),
    "mul": after_conv(lambda b, x: b.join("mul", x, b.conv("image", 8))),
    "mul_broadcast": after_conv(lambda b, x: b.join("mul", b.one("sigmoid", b.one("mean", x)), x)),
    "concat of other scales": after_conv(
        lambda b, x: b.join("concat", x, b.one("sigmoid", b.conv("image", 3)), b.conv("image", 2))
    ),
    "concat": after_conv(lambda b, x: b.join("concat", x, b.conv("image", 3, like=x), x)),
    "max_pool": after_conv(lambda b, x: b.pool("max_pool", x)),
    "max_pool_ceil": after_conv(lambda b, x: b.pool("max_pool", x, ceil=True)),
    "max_pool_3_2_ceil": after_conv(lambda b, x: b.pool("max_pool", x, kernel=(3, 3), ceil=True)),
    "max_pool_3_2_padded": after_conv(lambda b, x: b.pool("max_pool", x, kernel=(3, 3), padding=(1, 1))),
    "max_pool_3_2_padded_relu": after_conv(
        lambda b, x: b.pool("max_pool", x, kernel=(3, 3), padding=(1, 1)), activation="relu"
    ),
    "avg_pool": after_conv(lambda b, x: b.pool("avg_pool", x)),
    "avg_pool_ceil": after_conv(lambda b, x: b.pool("avg_pool", x, ceil=True)),
    "avg_pool_same": after_conv(lambda b, x: b.pool("avg_pool", x, kernel=(3, 3), stride=(1, 1), padding=(1, 1))),
    "avg_pool_counting": after_conv(
        lambda b, x: b.pool("avg_pool", x, kernel=(3, 3), padding=(1, 1), counts_padding=True)
    ),
    "adaptive_pool": after_conv(lambda b, x: b.bins(x, (6, 3))),
    "adaptive_pool_even": after_conv(lambda b, x: b.bins(x, (3, 1) if b.size[0] % 2 else (4, 8))),
    "pad": after_conv(lambda b, x: b.pad(x, (1, 2), (0, 3))),
    "mean": after_conv(lambda b, x: b.one("mean", x)),
    "bilinear_double": after_conv(lambda b, x: b.resize(x, (2 * b.size[0], 2 * b.size[1]))),
    "bilinear_odd": after_conv(lambda b, x: b.resize(x, (19, 37))),
    "bilinear_down": after_conv(lambda b, x: b.resize(x, (7, 5))),
    "bilinear_from_1x1": after_conv(lambda b, x: b.resize(b.one("mean", x), b.size)),
    "bilinear_aligned": after_conv(lambda b, x: b.resize(x, (29, 31), align_corners=True)),
    "bilinear_aligned_down": after_conv(lambda b, x: b.resize(x, (7, 1), align_corners=True)),
    "bicubic": after_conv(lambda b, x: b.resize(x, (29, 9), "bicubic")),
    "bicubic_aligned": after_conv(lambda b, x: b.resize(x, (29, 9), "bicubic", align_corners=True)),
    "nearest_double": after_conv(lambda b, x: b.resize(x, (2 * b.size[0], 2 * b.size[1]), "nearest")),
    "nearest_odd": after_conv(lambda b, x: b.resize(x, (19, 37), "nearest")),
    "nearest_down": after_conv(lambda b, x: b.resize(x, (7, 5), "nearest")),
    "relu": after_conv(lambda b, x: b.one("relu", x)),
    "relu6": after_conv(lambda b, x: b.one("relu6", x)),
    "sigmoid": after_conv(lambda b, x: b.one("sigmoid", x)),
    "softmax": after_conv(lambda b, x: b.one("softmax", x)),
    **{case: after_conv(_unary(*named)) for case, named in unary_cases.CASES.items()},
}


def u_shape(b: GraphBuilder) -> None:
    """A small U: two scales, a dilated floor, skip connections, a residual, two complementary channels."""
    top = b.conv("image", 8, activation="relu")
    down = b.pool("max_pool", top, ceil=True)
    floor = b.conv(down, 8, padding=(2, 2), dilation=(2, 2), activation="relu")
    up = b.resize(floor, b.size)
    joined = b.join("concat", up, b.conv(top, 8, activation="relu", like=floor))
    out = b.join("add", b.conv(joined, 8, activation="relu"), top)
    logits = b.conv(out, 1, kernel=(1, 1), padding=(0, 0))
    b.one("sigmoid", b.conv(logits, 2, kernel=(1, 1), padding=(0, 0)))
