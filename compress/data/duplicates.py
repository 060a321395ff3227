"""Images that are one and the same picture, whatever was done to the file: another size, JPEG quality or brightness,
grey, or mirrored. Crops are not found.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

HASH_DISTANCE = 10
CORRELATION = 0.95
_FREQUENCIES = 8
_FLATTEST = 2.0  # grey levels, standard deviation
_CHUNK = 256


@dataclass(frozen=True)
class Fingerprints:
    """What images are compared by.

    hashes   uint64 [N], 63 bits each
    shapes   float32 [N, 1024], the grey thumbnail with mean 0 and length 1, or all 0 where it is flat
    """

    hashes: np.ndarray
    shapes: np.ndarray


def fingerprints(thumbnails: np.ndarray) -> Fingerprints:
    """Of uint8 [N, 32, 32, 3] as `compress.data.images.checked` gives them.

    The hash is pHash (Zauner 2010, "Implementation and benchmarking of perceptual image hash functions"): a bit for
    each of the lowest cosine frequencies but the constant one, set where it is above their median.
    """
    grey = thumbnails.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    count, size = grey.shape[:2]
    n = np.arange(size)
    cosines = np.cos(np.pi * (2 * n + 1) * n[:_FREQUENCIES, None] / (2 * size)).astype(np.float32)
    spectrum = (cosines @ grey @ cosines.T).reshape(count, _FREQUENCIES**2)[:, 1:]
    bits = spectrum > np.median(spectrum, axis=1, keepdims=True)
    hashes = np.packbits(np.pad(bits, ((0, 0), (0, 1))), axis=1).view(np.uint64)[:, 0]
    centred = grey.reshape(count, -1) - grey.reshape(count, -1).mean(1, keepdims=True)
    flat = centred.std(axis=1, keepdims=True) < _FLATTEST
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return Fingerprints(hashes, np.where(flat, 0, centred / np.maximum(length, 1e-6)).astype(np.float32))


def duplicates(images: np.ndarray, others: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs (i, j) in which image i is image j of the others, or its mirror image, by i and then by j.

    Both are thumbnails as `fingerprints` takes them. Two pictures are one where their hashes differ in at most 10
    of 63 bits, and, so that chance raises no alarm, where also the thumbnails correlate at 0.95 or more. A flat
    picture has no shape to go by and duplicates nothing.
    """
    ours = fingerprints(images)
    theirs = [fingerprints(others), fingerprints(others[:, :, ::-1])]
    for start in range(0, len(images), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        found: set[tuple[int, int]] = set()
        for other in theirs:
            near = np.bitwise_count(ours.hashes[chunk, None] ^ other.hashes) <= HASH_DISTANCE
            rows, columns = np.nonzero(near)
            same = (ours.shapes[chunk][rows] * other.shapes[columns]).sum(1) >= CORRELATION
            found.update(zip((rows[same] + start).tolist(), columns[same].tolist()))
        yield from sorted(found)
