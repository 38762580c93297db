"""Crops, flips and normalisation of single images."""

from __future__ import annotations

import numpy as np
from data_files import COLOURS, GREYS, WHOLE, rng
from PIL import Image

from pcae_core.config import DataConfig, ModelConfig, PretrainConfig
from pcae_core.data import normalize
from pcae_core.data.transforms import resize_center_crop, stack, training_pipeline
from pcae_core.data.transforms.crop import RandomResizedCrop


def test_evaluation_takes_the_centred_square():
    assert np.array_equal(resize_center_crop(Image.fromarray(GREYS[0][:9]), 9), GREYS[0][None, :9])
    bands = np.repeat(np.array([10, 200, 10], np.uint8), [20, 40, 20])
    wide = Image.fromarray(np.tile(bands, (40, 1)))
    inner = resize_center_crop(wide, 20)
    assert inner.shape == (1, 20, 20)
    assert inner[0, :, 2:-2].min() >= 198
    tall = resize_center_crop(wide.transpose(Image.Transpose.ROTATE_90), 20)
    assert np.array_equal(tall[0], np.rot90(inner[0]))


def test_colours_come_first():
    pixels = resize_center_crop(Image.fromarray(COLOURS[0][:9]), 9)
    assert np.array_equal(pixels, COLOURS[0][:9].transpose(2, 0, 1))


def test_batches_lie_in_memory_as_their_shape_says():
    images = [resize_center_crop(Image.fromarray(image), 9) for image in COLOURS[:2]]
    batch = stack([images[0], images[1][:, :, ::-1]])
    assert batch.flags.c_contiguous
    assert np.array_equal(batch, [images[0], images[1][:, :, ::-1]])


def test_crop_of_everything_is_a_plain_resize():
    square = Image.fromarray(COLOURS[0][:9])
    expected = np.asarray(square.resize((5, 5), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.array_equal(RandomResizedCrop(5, WHOLE.crop_scale, WHOLE.crop_ratio)(square, rng()), expected)


def test_channels_of_arrays_are_treated_alike():
    values = np.concatenate([COLOURS[0], COLOURS[1]], axis=2)
    crop = RandomResizedCrop(7, DataConfig().crop_scale, DataConfig().crop_ratio)
    result = crop(values, rng(3))
    for channel in range(6):
        single = Image.fromarray(np.ascontiguousarray(values[..., channel]))
        assert np.array_equal(result[channel], crop(single, rng(3))[0])


def pipeline(loader: DataConfig):
    model = ModelConfig(image_size=9, patch_size=3, in_chans=1)
    return training_pipeline(PretrainConfig(model=model, loader=loader))


def test_half_of_the_images_are_flipped():
    image = Image.fromarray(GREYS[0][:9])
    straight = GREYS[0][None, :9]
    plain, flipping = (pipeline(WHOLE.model_copy(update={"hflip": flip})) for flip in (False, True))
    flips = 0
    for seed in range(400):
        result = flipping(image, rng(seed))
        flips += np.array_equal(result, straight[..., ::-1])
        assert np.array_equal(result, straight) or np.array_equal(result, straight[..., ::-1])
        assert np.array_equal(plain(image, rng(seed)), straight)
    assert 150 < flips < 250


def test_random_boxes_have_the_asked_area_and_shape():
    crop = RandomResizedCrop(8, (0.2, 0.8), (0.5, 2.0))
    boxes = np.array([crop.draw_box(400, 300, rng(seed)) for seed in range(2000)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes.min() >= 0
    assert (boxes[:, 2] <= 400).all()
    assert (boxes[:, 3] <= 300).all()
    share, ratio = width * height / (400 * 300), width / height
    assert 0.195 < share.min() < 0.21
    assert 0.75 < share.max() < 0.805
    assert 0.49 < ratio.min() < 0.53
    assert 1.9 < ratio.max() < 2.03
    assert abs(np.log(ratio).mean()) < 0.15  # symmetric in the logarithm; large wide boxes fit a bit more often


def test_boxes_that_never_fit_are_centred():
    crop = RandomResizedCrop(8, (1.0, 1.0), (0.75, 4 / 3))
    assert crop.draw_box(1000, 9, rng()) == (494, 0, 506, 9)
    assert crop.draw_box(9, 1000, rng()) == (0, 494, 9, 506)
    assert crop.draw_box(1, 1, rng()) == (0, 0, 1, 1)
    assert crop.draw_box(500, 1, rng()) == (249, 0, 250, 1)


def test_normalize():
    values = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(2, axis=1)
    result = normalize(values, (0.5, 0.25), (0.25, 0.5))
    assert result.dtype == np.float32
    exact = (values / 255 - np.array([0.5, 0.25])[:, None, None]) / np.array([0.25, 0.5])[:, None, None]
    assert np.abs(result - exact).max() < 1e-6
