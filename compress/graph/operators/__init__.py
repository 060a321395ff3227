"""Every operator that a network may have, each defined in one place.

To add one, write its entry beside its kind, name it here and give it a case in the tests: the generic tests then hold
it against torch, both runtimes and an independent reference.
"""

from compress.graph.operators.conv import CONV, CONV_TRANSPOSE
from compress.graph.operators.elementwise import ADD, CONCAT, MUL
from compress.graph.operators.image import IMAGE
from compress.graph.operators.pool import ADAPTIVE_POOL, AVG_POOL, MAX_POOL, MEAN
from compress.graph.operators.resize import BICUBIC, RESIZE
from compress.graph.operators.shape import PAD
from compress.graph.operators.unary import UNARY

OPERATORS = {
    operator.name: operator
    for operator in (
        *(IMAGE, CONV, CONV_TRANSPOSE, ADD, MUL, CONCAT, PAD),
        *(MAX_POOL, AVG_POOL, MEAN, ADAPTIVE_POOL, RESIZE, BICUBIC),
        *UNARY,
    )
}
"""By name."""
