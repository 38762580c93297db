"""Faults of `restore_grid`."""

from __future__ import annotations

import math

import numpy as np

from faults.fault import numpy_override, torch_override
from faults.scores import unit_length


def nearest(similarity, own, survivors):
    """Places (B, N) among the survivors (B, k), of the similarities (B, N, k) of patches with them."""
    return np.where(own, np.inf, np.where(np.isnan(similarity), -np.inf, similarity)).argmax(axis=2)


def the_one_before(similarity, own, survivors):
    return ((survivors[:, None, :] <= np.arange(similarity.shape[1])[:, None]).sum(axis=2) - 1).clip(0)


def least_similar(similarity, own, survivors):
    return nearest(-similarity, own, survivors)


def highest_of_equals(similarity, own, survivors):
    return survivors.shape[1] - 1 - nearest(similarity[:, :, ::-1], own[:, :, ::-1], survivors)


def nan_first(similarity, own, survivors):
    return nearest(np.nan_to_num(similarity, nan=2.0), own, survivors)


def own_place_forgotten(similarity, own, survivors):
    return nearest(similarity, np.zeros_like(own), survivors)


def restoring(choose=nearest, unit=unit_length, ascending=True):
    """`restore_grid` with parts to get wrong: the choice, the features' length, the order of the survivors."""

    def restore_grid(self, tokens, kept_ids, num_patches, features=None):
        order = np.argsort(kept_ids, axis=1)
        order = order if ascending else np.broadcast_to(np.arange(order.shape[1]), order.shape)
        survivors = np.take_along_axis(kept_ids, order, axis=1)
        if features is None:
            places = np.stack(np.divmod(np.arange(num_patches), math.isqrt(num_patches)), axis=1)
            similarity = -1.0 * ((places[:, None] - places[survivors][:, None]) ** 2).sum(axis=-1)
        else:
            own_unit = unit(np.array(features, dtype=np.float64))
            similarity = own_unit @ np.take_along_axis(own_unit, survivors[:, :, None], axis=1).swapaxes(1, 2)
        own = survivors[:, None, :] == np.arange(num_patches)[:, None]
        chosen = choose(similarity, own, survivors)
        return self.right.gather_tokens(tokens, np.take_along_axis(order, chosen, axis=1))

    return restore_grid


def taken_for_ascending(self, tokens, kept_ids, num_patches, features=None):
    return self.right.restore_grid(tokens, np.sort(kept_ids, axis=1), num_patches, features)


def by_a_product(self, tokens, kept_ids, num_patches, features=None):
    """With 0 and 1, which spreads a NaN."""
    count = np.shape(kept_ids)[1]
    ones = np.broadcast_to(np.eye(count), (len(kept_ids), count, count))
    return self.right.restore_grid(ones, kept_ids, num_patches, features) @ tokens


def features_of_other_patches(self, tokens, kept_ids, num_patches, features=None):
    fitting = features is None or np.shape(features)[1] == num_patches
    return self.right.restore_grid(tokens, kept_ids, num_patches, features if fitting else None)


def gradient_stopped(self, tokens, kept_ids, num_patches, features=None):
    return self.right.restore_grid(tokens.detach() + 0 * tokens.mean(), kept_ids, num_patches, features)


def gradient_of_the_own_place(self, tokens, kept_ids, num_patches, features=None):
    filled = self.right.restore_grid(tokens, kept_ids, num_patches, features)
    places = self.right.asarray(np.arange(num_patches))
    own = (kept_ids[:, :, None] == places).any(dim=1)
    return filled.where(own[:, :, None], filled.detach())


FAULTS = (
    numpy_override("filled from the survivor before", "grid-definition", restore_grid=restoring(the_one_before)),
    numpy_override("filled from the least similar", "grid-definition", restore_grid=restoring(least_similar)),
    numpy_override(
        "similarity of unscaled features", "grid-reference", restore_grid=restoring(unit=lambda features: features)
    ),
    numpy_override("ties to the first of the ids", "grid-definition", restore_grid=restoring(ascending=False)),
    numpy_override("ties to the higher id", "grid-definition", restore_grid=restoring(highest_of_equals)),
    numpy_override("NaN is most similar", "grid-definition", restore_grid=restoring(nan_first)),
    numpy_override("survivors filled as the others", "grid-survivors", restore_grid=restoring(own_place_forgotten)),
    numpy_override("ids taken for ascending", "grid-all", restore_grid=taken_for_ascending),
    numpy_override("fills by a product with 0 and 1", "grid-survivors", restore_grid=by_a_product),
    numpy_override("shapes not checked", "grid-shapes", restore_grid=features_of_other_patches),
    torch_override("gradient stopped", "grid-gradient", "float64", restore_grid=gradient_stopped),
    torch_override(
        "gradient of the own place only", "grid-gradient", "float64", restore_grid=gradient_of_the_own_place
    ),
)
