"""Every operator that a network may have, each defined in one place.

To add one, write its entry beside its kind, name it here and give it a case in the tests: the generic tests then hold
it against torch, both runtimes and an independent reference.
"""

from compress.graph.operators.attention import ATTENTION
from compress.graph.operators.conv import CONV, CONV_TRANSPOSE
from compress.graph.operators.elementwise import ADD, CONCAT, LOCAL_AFFINE, MUL, SUB
from compress.graph.operators.image import IMAGE
from compress.graph.operators.norm import GROUP_NORM, INSTANCE_NORM, LAYER_NORM
from compress.graph.operators.pool import ADAPTIVE_POOL, AVG_POOL, MAX_POOL, MEAN, UNPOOL
from compress.graph.operators.resize import BICUBIC, RESIZE
from compress.graph.operators.shape import ARRANGE, ARRANGE_PIXELS, CHANNEL_MAX, PAD, ROLL
from compress.graph.operators.unary import UNARY

OPERATORS = {
    operator.name: operator
    for operator in (
        *(IMAGE, CONV, CONV_TRANSPOSE, ADD, SUB, MUL, CONCAT, LOCAL_AFFINE, ATTENTION),
        *(PAD, ROLL, ARRANGE, ARRANGE_PIXELS, CHANNEL_MAX),
        *(MAX_POOL, AVG_POOL, MEAN, ADAPTIVE_POOL, UNPOOL, RESIZE, BICUBIC),
        *(INSTANCE_NORM, GROUP_NORM, LAYER_NORM),
        *UNARY,
    )
}
"""By name."""
