"""Views against numpy: whatever a view says of a tensor, reading the map by it gives that tensor."""

import numpy as np
import pytest

from compress.graph.operators.shape import ArrangeAttributes
from compress.load.axes import Part, View, broadcast

SHAPE = (12, 4, 6)


def read(view: View, the_map: np.ndarray) -> np.ndarray:
    """The tensor that a view tells of, from its map [C, H, W]: place by place."""
    places = {"c": 0, "h": 0, "w": 0}
    for index, dim in enumerate(view.dims):
        inside = [part.size for part in dim]
        digits = np.unravel_index(np.arange(int(np.prod(inside))), inside) if inside else ()
        shape = [1] * len(view.dims)
        shape[index] = -1
        for part, digit in zip(dim, digits, strict=True):
            places[part.axis] = places[part.axis] + np.reshape(digit, shape) * part.stride
    return the_map[places["c"], places["h"], places["w"]]


def divisors(size: int) -> list[int]:
    return [n for n in range(1, size + 1) if size % n == 0]


def moved(seed: int) -> tuple[View, np.ndarray, np.ndarray]:
    """A view after some reshapes and permutations, its map, and the same done to the map by numpy."""
    random = np.random.default_rng(seed)
    the_map = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    view, wanted = View.of_map("x", (1, *SHAPE)), the_map[None]
    for _ in range(random.integers(1, 6)):
        if random.random() < 0.5:
            order = random.permutation(wanted.ndim).tolist()
            view, wanted = view.permuted(order), wanted.transpose(order)
        else:
            left, sizes = wanted.size, []
            while left > 1 and len(sizes) < 4:
                sizes.append(int(random.choice(divisors(left))))
                left //= sizes[-1]
            sizes.append(left)
            reshaped = view.reshaped(sizes)
            if reshaped is not None:
                view, wanted = reshaped, wanted.reshape(sizes)
    return view, the_map, wanted


@pytest.mark.parametrize("seed", range(100))
def test_reading_a_map_by_its_view_gives_what_numpy_gives(seed):
    view, the_map, wanted = moved(seed)
    assert view.sizes == wanted.shape
    np.testing.assert_array_equal(np.broadcast_to(read(view, the_map), wanted.shape), wanted)


def test_tokens_are_the_map_with_channels_last():
    tokens = View.of_map("x", (1, *SHAPE)).reshaped((1, 12, 24)).permuted((0, 2, 1))
    assert tokens.sizes == (1, 24, 12)
    assert tokens.dims[1] == tokens.whole("hw")
    assert tokens.dims[2] == tokens.whole("c")
    assert tokens.permuted((0, 2, 1)).reshaped((1, *SHAPE)).is_map


def test_heads_are_parts_of_the_channels():
    heads = View.of_map("x", (1, *SHAPE)).reshaped((1, 3, 4, 24))
    assert heads.dims[1] == (Part("c", 3, 4),)
    assert heads.dims[2] == (Part("c", 4, 1),)
    assert heads.reshaped((1, 12, 24)).dims[1] == heads.whole("c")


def test_a_reshape_that_divides_an_axis_unevenly_is_none():
    assert View.of_map("x", (1, 12, 4, 6)).reshaped((1, 8, 36)) is None
    assert View.of_map("x", (1, 12, 4, 6)).reshaped((1, 12, 4)) is None
    assert View.of_map("x", (1, 12, 4, 6)).reshaped((1, 12, 4, 6, 2)) is None


@pytest.mark.parametrize(
    ("left", "right", "fits"),
    [
        (View.of_map("x", SHAPE), View.of_map("y", SHAPE), True),
        (View.of_map("x", SHAPE), View.of_map("y", (12, 1, 1)), True),
        (View.of_map("x", (1, 4, 6)), View.of_map("y", SHAPE), True),
        (View.of_map("x", SHAPE), View.of_map("y", SHAPE).permuted((0, 2, 1, 3)), False),
        (View.of_map("x", (12, 12, 12)), View.of_map("y", (12, 12, 12)).permuted((0, 2, 1, 3)), False),
        (View.of_map("x", (12, 1, 1)).reshaped((1, 12)), View.of_map("y", (12, 4, 6)), False),
    ],
)
def test_two_views_join_where_their_maps_do(left, right, fits):
    assert (broadcast(left, right) is not None) == fits


def arranged(the_map: np.ndarray, a: ArrangeAttributes) -> np.ndarray:
    """What an arrangement makes of a map [C, H, W]."""
    apart = the_map.reshape(*a.channels, *a.height, *a.width)
    turned = apart.transpose([index for one in a.order for index in one])
    sizes = (*a.channels, *a.height, *a.width)
    return turned.reshape([int(np.prod([sizes[index] for index in one])) for one in a.order])


@pytest.mark.parametrize("seed", range(30))
def test_an_arranged_map_holds_the_same_tensor(seed):
    view, the_map, wanted = moved(seed)
    places = np.random.default_rng(seed).integers(0, 3, wanted.ndim)
    groups = [[index for index, place in enumerate(places) if place == axis] for axis in range(3)]
    attributes, result = view.arranged(groups)
    assert result.shape == tuple(int(np.prod([wanted.shape[index] for index in group])) for group in groups)
    np.testing.assert_array_equal(np.broadcast_to(read(result, arranged(the_map, attributes)), wanted.shape), wanted)


@pytest.mark.parametrize("seed", range(30))
def test_a_tensor_that_is_told_like_another_is_still_the_same(seed):
    view, the_map, wanted = moved(seed)
    for more in range(20):
        other = moved(100 * seed + more)[0].reshaped(wanted.shape)
        if other and (found := view.like(other)):
            attributes, result = found
            assert (result.dims, result.shape) == (other.dims, other.shape)
            np.testing.assert_array_equal(
                np.broadcast_to(read(result, arranged(the_map, attributes)), wanted.shape), wanted
            )


def test_what_is_the_same_everywhere_stays_so_when_it_is_told_like_a_map():
    gate = View.of_map("g", (1, 1, 1, 12)).reshaped((1, 12, 1, 1))
    attributes, result = gate.like(View.of_map("x", (1, *SHAPE)))
    assert result.shape == (12, 1, 1)
    assert result.dims == ((), (Part("c", 12),), (), ())
    assert attributes.order == ((0,), (), ())
