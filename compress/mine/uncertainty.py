"""How uncertain models are of what is in an image, pixel by pixel and as a whole."""

from dataclasses import dataclass

import numpy as np

_EMPTY = 0.01
"""Share of an image that an object is taken to have at least, so that an empty image is not uncertain all over."""


@dataclass(frozen=True)
class Uncertainty:
    """Of one image, float32 [H, W] each, from 0 to 1.

    unsure        how little the models, each for itself, know the class
    disagreement  how far they contradict each other
    foreground    the mean probability of any class but the first, or of any label
    """

    unsure: np.ndarray
    disagreement: np.ndarray
    foreground: np.ndarray


@dataclass(frozen=True)
class Score:
    """Of one image, shares of what may be an object in it, from 0 to 1."""

    unsure: float
    disagreement: float

    @property
    def uncertainty(self) -> float:
        return self.unsure + self.disagreement


def uncertainty(probabilities: np.ndarray, multilabel: bool = False) -> Uncertainty:
    """The uncertainty of models whose answers are float32 [models, classes, H, W]; of labels, each of which is there or
    not, the mean over them.

    The entropy of the mean answer, in units of its largest value, is split as in query by committee (McCallum and
    Nigam 1998) and BALD (Houlsby et al. 2011): the mean entropy of the answers is what the models are unsure of,
    and the rest, the Jensen-Shannon divergence, is what they disagree on.
    """
    mean, entropy = probabilities.mean(0), _entropy_of_labels if multilabel else _entropy
    unsure = entropy(probabilities).mean(0)
    disagreement = (entropy(mean[None])[0] - unsure).clip(0, 1)
    return Uncertainty(unsure, disagreement, 1 - ((1 - mean).prod(0) if multilabel else mean[0]))


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    """[models, classes, H, W] -> [models, H, W], 1 where all classes are equally likely."""
    return -(probabilities * np.log(probabilities.clip(1e-6))).sum(1) / np.log(probabilities.shape[1])


def _entropy_of_labels(probabilities: np.ndarray) -> np.ndarray:
    """[models, labels, H, W] -> [models, H, W], 1 where every label is as likely as not."""
    return np.mean([_entropy(np.stack([one, 1 - one], 1)) for one in probabilities.swapaxes(0, 1)], axis=0)


def score(uncertainty: Uncertainty) -> Score:
    """Uncertain pixels as a share of those that may be an object: a small object that is uncertain all over counts as
    much as a large one."""
    total = uncertainty.unsure + uncertainty.disagreement
    possible = np.maximum(total, uncertainty.foreground).sum() + _EMPTY * total.size
    return Score(float(uncertainty.unsure.sum() / possible), float(uncertainty.disagreement.sum() / possible))
