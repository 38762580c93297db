"""Probes of frozen features: weighted k-nearest neighbours, a linear probe, and the effective rank.

Letters: n training samples, m test samples, D width.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from pcae_core.contract import Floats
from pcae_core.evaluation.accuracy import Accuracy, accuracy

Features = Floats
Labels = NDArray[np.int64]

CHUNK = 1024  # test samples whose similarities are in memory at once


def knn(
    train: Features, train_labels: Labels, test: Features, test_labels: Labels, k: int = 20, temperature: float = 0.07
) -> Accuracy:
    """Weighted k-NN: the k nearest neighbours by cosine vote with weight `exp(cosine / temperature)` (Wu et al. 2018).

    Args:
        train, test: features (n, D) and (m, D).
    """
    train, test = _unit(train), _unit(test)
    k, classes = min(k, len(train)), int(max(train_labels.max(), test_labels.max())) + 1
    scores = np.zeros((len(test), classes))
    for start in range(0, len(test), CHUNK):
        similarity = test[start : start + CHUNK] @ train.T
        nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        weights = np.exp(np.take_along_axis(similarity, nearest, axis=1) / temperature)
        rows = start + np.arange(len(similarity))[:, None]
        np.add.at(scores, (rows, train_labels[nearest]), weights)
    return accuracy(scores, test_labels)


def _unit(features: Features) -> Features:
    length = np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    unit: Features = (features / length).astype(np.float32)
    return unit


def linear_probe(train: Features, train_labels: Labels, test: Features, test_labels: Labels) -> Accuracy:
    """Multinomial logistic regression on standardised features (scikit-learn, L2 with C = 1)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # full convergence gains 0.1% and takes minutes
        classifier.fit(train.astype(np.float64), train_labels)
    scores = np.full((len(test), int(max(train_labels.max(), test_labels.max())) + 1), -np.inf)
    scores[:, classifier.classes_] = classifier.predict_log_proba(test.astype(np.float64))
    return accuracy(scores, test_labels)


def effective_rank(features: Floats) -> float:
    """Exponential of the entropy of the covariance's eigenvalue shares (after Roy & Vetterli 2007).

    Args:
        features: (n, D), n >= 2.

    Returns:
        A number from 1 to D: 1.0 if all rows are equal, NaN if a feature is not finite.
    """
    if not np.isfinite(features).all():
        return float("nan")
    centered = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    few, many = sorted((centered, centered.T), key=len)  # the smaller product has the same nonzero eigenvalues
    variances = np.linalg.eigvalsh(few @ many).clip(min=0.0)
    total = variances.sum()
    if total == 0:
        return 1.0
    shares = variances[variances > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))
