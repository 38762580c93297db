"""What fine-tuning does to images and targets: RandAugment, random erasing, mixup, CutMix, label smoothing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pcae_core import ConfigError, DataConfig, FinetuneConfig, ModelConfig, PretrainConfig
from pcae_core.config.rand_augment import RandAugmentPolicy
from pcae_core.data.transforms import soft_targets, training_pipeline
from pcae_core.data.transforms.mixing import Mixing, mix_batch
from pcae_core.data.transforms.rand_augment import OPERATIONS, Strength
from pcae_core.data.transforms.random_erasing import RandomErasing

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 3, 0, 1])
MODEL = ModelConfig(image_size=8, patch_size=4)


def settings(**more) -> FinetuneConfig:
    return FinetuneConfig(model=MODEL, batch_size=6, **({"mixup": 0.0, "cutmix": 0.0} | more))


def test_the_pipeline_is_in_order():
    def names(config):
        pipeline = training_pipeline(config)
        steps = (pipeline.crop, *pipeline.transforms, *filter(None, [pipeline.mixing]))
        return [getattr(step, "__name__", type(step).__name__) for step in steps]

    everything = ["RandomResizedCrop", "random_horizontal_flip", "RandAugment", "RandomErasing", "Mixing"]
    assert names(FinetuneConfig(model=MODEL)) == everything
    assert names(PretrainConfig(model=MODEL)) == everything[:2]
    assert names(settings(loader=DataConfig(hflip=False), rand_augment=None, random_erasing=0.0)) == everything[:1]


def test_the_pipeline_mixes_where_the_run_does():
    targets = soft_targets(LABELS, 4, 0.0)
    config = settings(mixup=0.8)
    for ours, theirs in zip(
        training_pipeline(config).mix(IMAGES[2:4], targets[2:4], 3, 2),
        mix_batch(IMAGES[2:4], targets[2:4], Mixing(config).draw(3, 2, 2)),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)
    images, same = training_pipeline(settings()).mix(IMAGES, targets, 3, 0)
    assert images is IMAGES
    assert same is targets


def test_soft_targets():
    np.testing.assert_allclose(soft_targets(np.array([1]), 4, 0.2), [[0.05, 0.85, 0.05, 0.05]], rtol=1e-6)


def test_mixup_blends_a_pair():
    mix = Mixing(settings(mixup=0.8)).draw(3, 0, 6)
    targets = soft_targets(LABELS, 4, 0.0)
    images, mixed = mix_batch(IMAGES, targets, mix)
    for i, share in enumerate(mix.shares):
        blend = share * IMAGES[i] + (1 - share) * IMAGES[i ^ 1]
        assert np.abs(images[i] - blend).max() <= 0.51
        np.testing.assert_allclose(mixed[i], share * targets[i] + (1 - share) * targets[i ^ 1], rtol=1e-6)
    assert len(set(mix.shares)) == 6


def test_cutmix_takes_a_box_and_its_share_of_the_label():
    for step in range(20):
        mix = Mixing(settings(cutmix=1.0)).draw(step, 0, 6)
        images, targets = mix_batch(IMAGES, soft_targets(LABELS, 4, 0.0), mix)
        for i in range(6):
            own = (images[i] == IMAGES[i]).all(axis=0)
            other = (images[i] == IMAGES[i ^ 1]).all(axis=0)
            assert (own | other).all()
            assert targets[i, LABELS[i]] == pytest.approx(own.mean(), abs=1e-6)


def test_both_switch_and_none_is_none():
    mixes = [Mixing(settings(mixup=0.8, cutmix=1.0, mixup_switch_prob=0.5)).draw(step, 0, 6) for step in range(50)]
    cut = np.concatenate([mix.boxes[:, 1] > mix.boxes[:, 0] for mix in mixes])
    assert 0.3 < cut.mean() < 0.6
    assert training_pipeline(settings()).mixing is None


def test_a_mix_does_not_depend_on_how_the_batch_is_cut():
    config = settings(mixup=0.8, cutmix=1.0)
    whole, part = Mixing(config).draw(5, 0, 6), Mixing(config).draw(5, 2, 2)
    np.testing.assert_array_equal(part.shares, whole.shares[2:4])
    np.testing.assert_array_equal(part.boxes, whole.boxes[2:4])


def test_erasing_makes_a_rectangle_noise():
    image = np.full((3, 32, 32), 7, np.uint8)
    shares = []
    for seed in range(50):
        erased = RandomErasing(1.0, (0.5,) * 3, (0.2,) * 3)(image, np.random.default_rng(seed))
        rows, columns = np.nonzero((erased != 7).any(axis=0))
        shares.append((rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1) / 32**2)
        outside = erased.copy()
        outside[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = 7
        assert (outside == 7).all()
    assert min(shares) > 0.005
    assert max(shares) < 0.4
    assert RandomErasing(0.0, (0.5,) * 3, (0.2,) * 3)(image, np.random.default_rng(0)) is image


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("index", range(len(OPERATIONS)))
def test_operations_keep_mode_and_size(index, mode):
    image = Image.fromarray(IMAGES[0].transpose(1, 2, 0)).convert(mode)
    for severity in (0.0, 0.5, 1.0):
        for sign in (-1.0, 1.0):
            changed = OPERATIONS[index](image, Strength(severity, sign, True, (1, 2, 3)))
            assert (changed.mode, changed.size) == (mode, (8, 8))


def test_increasing_operations_do_little_at_magnitude_zero():
    """All but those without a magnitude: contrast, equalise, invert; a posterised image keeps four bits."""
    image = Image.fromarray(IMAGES[0].transpose(1, 2, 0))
    for operation in OPERATIONS[3:]:
        changed = np.asarray(operation(image, Strength(0.0, 1.0, True, (0, 0, 0)))).astype(int)
        assert np.abs(changed - np.asarray(image)).max() <= 16
        strong = np.asarray(operation(image, Strength(1.0, 1.0, True, (0, 0, 0)))).astype(int)
        assert np.abs(strong - np.asarray(image)).max() > 16


def test_rand_augment_is_a_function_of_the_generator():
    chosen = training_pipeline(settings(rand_augment="rand-m9-n3-mstd0.5-inc1", random_erasing=0.5))
    image = Image.fromarray(IMAGES[0].transpose(1, 2, 0))
    first, again, other = (chosen(image, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (first.shape, first.dtype) == ((3, 8, 8), np.uint8)


def test_names_of_rand_augment():
    assert RandAugmentPolicy.parse("rand-m9-mstd0.5-inc1") == RandAugmentPolicy(9.0, 2, 0.5, True, 0.5)
    assert RandAugmentPolicy.parse("rand-m5-n3-p1") == RandAugmentPolicy(5.0, 3, 0.0, False, 1.0)
    for name in ("rand-m11", "rand-x3", "rand-m", "auto-m9", "rand-n0"):
        with pytest.raises(ConfigError, match="rand_augment"):
            RandAugmentPolicy.parse(name)
