"""Evaluation: encode whole images, probe frozen features, score classifiers at several keep ratios."""
