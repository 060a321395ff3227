"""Recall of small objects: a mean over pixels or images does not notice when the small ones go."""

from collections.abc import Iterator

import numpy as np

SMALL = 0.01
"""An object is small that covers less than this share of the image ..."""
SPECK = 16
"""... and is larger than a slip of the annotator: pixels."""
FOUND = 0.5
"""Share of its pixels that must be predicted as its class for an object to count as found."""


def small_objects_found(prediction: np.ndarray, mask: np.ndarray, classes: int) -> tuple[bool, ...]:
    """For each small object in the mask, whether it was found. Both are class ids [H, W]; background (0) and void (from
    `classes` on) are no objects."""
    return tuple(
        bool(np.mean(prediction[object] == id) >= FOUND)
        for id in range(1, classes)
        for object in components(mask == id)
        if SPECK <= len(object[0]) < SMALL * mask.size
    )


def components(region: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows and columns of each connected part of `region`, bool [H, W]; diagonal neighbours touch."""
    rows, starts, ends = _runs(region)
    parent = list(range(len(rows)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    above = 0
    for run in range(len(rows)):
        while rows[above] < rows[run] - 1 or (rows[above] == rows[run] - 1 and ends[above] < starts[run]):
            above += 1
        other = above
        while rows[other] == rows[run] - 1 and starts[other] <= ends[run]:
            parent[root(other)] = root(run)
            other += 1
    labels = np.array([root(run) for run in range(len(rows))], int)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        lengths = [ends[run] - starts[run] for run in members]
        columns = np.concatenate([np.arange(starts[run], ends[run]) for run in members])
        yield np.repeat([rows[run] for run in members], lengths), columns


def _runs(region: np.ndarray) -> tuple[list[int], list[int], list[int]]:
    """Row, first column and column after the last of each run of pixels, from top to bottom and left to right."""
    steps = np.diff(np.pad(region, [(0, 0), (1, 1)]).astype(np.int8), axis=1)
    rows, starts = np.nonzero(steps == 1)
    return rows.tolist(), starts.tolist(), np.nonzero(steps == -1)[1].tolist()
