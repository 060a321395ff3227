"""How good the network was while it was made: what the report draws as a curve."""

import csv
import io
import logging
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

from compress.errors import WriteError
from compress.files import write_whole
from compress.report.record import HistoryPoint

log = logging.getLogger("compress")


class History:
    """`points` in order, which are in the CSV file `file` too as soon as they are known; `minutes` of training up to
    the last finished stage. Raises WriteError."""

    def __init__(self, file: Path | None = None):
        self.file = file
        self.points: list[HistoryPoint] = []
        self.minutes = 0.0

    def add(self, stage: str, iou: float, minutes: float = 0.0, loss: float | None = None) -> None:
        """`minutes`: of training since the last finished stage."""
        log.info("%s: IoU %.4f on the held-out images", stage, iou)
        self.points.append(HistoryPoint(stage, self.minutes + minutes, iou, loss))
        if self.file is None:
            return
        try:
            with self.file.open("a", newline="") as file:
                file.write(_lines(self.points[-1:]))
        except OSError as error:
            raise WriteError(f"{self.file}: cannot be written: {error.strerror}; choose another folder") from None

    def end_training(self) -> None:
        """A stage of training is finished: the next one's minutes count from its last point."""
        self.minutes = self.points[-1].minutes

    def restore(self, points: Sequence[HistoryPoint], minutes: float) -> None:
        self.points, self.minutes = list(points), minutes
        if self.file is not None:
            head = ",".join(field.name for field in fields(HistoryPoint)) + "\n"
            write_whole(self.file, (head + _lines(self.points)).encode())


def _lines(points: Sequence[HistoryPoint]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(astuple, points))
    return text.getvalue()
