"""Embeddings in two dimensions, through scikit-learn."""

import numpy as np

from stec.errors import DataError
from stec.report.facts import Map

# t-SNE of more points takes minutes and shows no more; of fewer, its perplexity means nothing.
MOST = 1000
_FEWEST = 50
_PERPLEXITY = 30
_WIDTH = 50


def flat_map(
    features: np.ndarray,
    labels: np.ndarray,
    classes: tuple[str, ...] = (),
    *,
    most: int = MOST,
    what: str = "samples",
    seed: int = 0,
) -> Map:
    """Features float [N, D], labels int [N] (-1: unknown) -> Map of at most `most` of them, drawn without replacement.
    what: a word for them.

    t-SNE (perplexity 30) of the 50 leading principal components of the unit-length features; with fewer than 50 samples
    the two leading principal components. DataError if a feature is not finite.
    """
    if not np.isfinite(features).all():
        raise DataError("the features to be drawn on a map hold numbers that are not finite.")
    total = len(features)
    # Imported here: with it, a run would begin two seconds later.
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import normalize

    if total > most:
        chosen = np.sort(np.random.default_rng(seed).choice(total, most, replace=False))
        features, labels = features[chosen], labels[chosen]
    unit = normalize(features.astype(np.float64))
    width = min(_WIDTH, len(unit) - 1, unit.shape[1])
    drawn = f"{len(unit):,} of {total:,} {what}" if total > len(unit) else f"{total:,} {what}"
    if len(unit) < _FEWEST or width < 2:
        # A single sample, or features of one number, have fewer than two directions: the rest is zero.
        flat = PCA(min(2, width), random_state=seed).fit_transform(unit) if width else np.zeros((len(unit), 0))
        places = np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
        return Map(places, labels, classes, f"Two leading principal components of the unit-length features, {drawn}")
    narrow = PCA(width, random_state=seed).fit_transform(unit)
    places = TSNE(perplexity=_PERPLEXITY, init="pca", random_state=seed).fit_transform(narrow)
    method = f"t-SNE (perplexity {_PERPLEXITY}) of {width} principal components of the unit-length features, {drawn}"
    return Map(places, labels, classes, method)


def most_frequent(flat: Map, num: int) -> Map:
    """The same map with colours for the `num` commonest labels alone (ties: the smaller one), if there are more."""
    labels, counts = np.unique(flat.labels[flat.labels >= 0], return_counts=True)
    if len(labels) <= num:
        return flat
    return flat._replace(coloured=tuple(labels[np.argsort(-counts, kind="stable")[:num]].tolist()))
