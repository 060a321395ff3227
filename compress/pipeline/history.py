"""How good the network was while it was made: what the report draws as a curve."""

import logging
from collections.abc import Sequence

from compress.report.record import HistoryPoint

log = logging.getLogger("compress")


class History:
    """`points` in order; `minutes` of training up to the last finished stage."""

    def __init__(self, points: Sequence[HistoryPoint] = (), minutes: float = 0.0):
        self.points, self.minutes = list(points), minutes

    def add(self, stage: str, iou: float, minutes: float = 0.0, loss: float | None = None) -> None:
        """`minutes`: of training since the last finished stage."""
        log.info("%s: IoU %.4f on the held-out images", stage, iou)
        self.points.append(HistoryPoint(stage, self.minutes + minutes, iou, loss))

    def end_training(self) -> None:
        """A stage of training is finished: the next one's minutes count from its last point."""
        self.minutes = self.points[-1].minutes

    def restore(self, points: Sequence[HistoryPoint], minutes: float) -> None:
        self.points, self.minutes = list(points), minutes

    def forget(self, stages: Sequence[str]) -> None:
        """As if these stages had not been."""
        self.points = [point for point in self.points if point.stage not in stages]
        self.minutes = max((point.minutes for point in self.points), default=0.0)
