"""Parts of images: a part of an image, and the same part of its target."""

import torch

from compress.train.views import LEAST, WHOLE, View, random_view


def test_a_part_is_cut_out_and_mirrored():
    values = torch.arange(12.0).reshape(1, 1, 3, 4)
    part = View(slice(1, 3), slice(0, 2), True)
    assert part.of(values, (2, 2)).tolist() == [[[[5, 4], [9, 8]]]]
    assert WHOLE.of(values, (3, 4)).equal(values)


def test_pixels_and_maps_are_seen_alike():
    pixels = torch.randint(0, 256, (1, 40, 30, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    view = random_view(40, 30, torch.Generator().manual_seed(1))
    as_map = view.of(pixels.permute(0, 3, 1, 2).float(), (16, 16)).permute(0, 2, 3, 1)
    assert (view.of_pixels(pixels, (16, 16)).float() - as_map).abs().max() <= 0.5


def test_random_parts_are_large_and_lie_anywhere_inside():
    generator = torch.Generator().manual_seed(0)
    views = [random_view(40, 80, generator) for _ in range(500)]
    for parts, side in (([view.rows for view in views], 40), ([view.columns for view in views], 80)):
        assert min(part.stop - part.start for part in parts) == round(LEAST * side)
        assert max(part.stop - part.start for part in parts) == side
        assert min(part.start for part in parts) == 0
        assert max(part.stop for part in parts) == side
    assert 200 < sum(view.mirrored for view in views) < 300
