"""Answers in the cache, asked for by two at once."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from compress.files import content_hash
from compress.mine.answers import Model, answers


def test_two_that_ask_for_the_same_answers_compute_each_once(tmp_path):
    images = {}
    for number in range(6):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(path)
        images[path] = content_hash(path)
    asked = []

    def answer(pixels):
        asked.append(int(pixels[0, 0, 0]))
        return np.full((2, 4, 4), 0.5, np.float32)

    model = Model(tmp_path / "m.pt", "identity", (8, 8), 2, False, answer)
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda _: answers(model, images, tmp_path), range(2)))
    assert sorted(asked) == [0, 40, 80, 120, 160, 200]
    assert all(one.of(key).shape == (2, 160, 160) for one in found for key in images.values())
    other = Model(tmp_path / "m.pt", "another identity", (8, 8), 2, False, answer)
    answers(other, images, tmp_path)
    assert len(asked) == 12
