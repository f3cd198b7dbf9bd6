"""Augmentations: against NumPy, and as a function of their draws alone."""

import numpy as np
import pytest

from trainer.recipe import NO_AUGMENTATION, Augmentation

SIZES = [(6, 8), (7, 5), (1, 1), (2, 3), (64, 48)]  # words of 4, 1, 1, 2 and 4 bytes
ALL = Augmentation(flip=True, crop=0.4, brightness=0.2, contrast=0.3, saturation=0.5)


@pytest.fixture
def augment(tf):
    from trainer.data import augmentation

    return augmentation


def pictures(height: int, width: int, count: int = 5) -> np.ndarray:
    rng = np.random.default_rng(height * 100 + width)
    return rng.integers(0, 256, (count, height, width, 3), np.uint8)


def everywhere(tf, function, images: np.ndarray) -> np.ndarray:
    """The same from eager execution, a tf.function and Dataset.map."""
    eager = function(tf.constant(images)).numpy()
    in_graph = tf.function(function)(tf.constant(images)).numpy()
    mapped = tf.data.Dataset.from_tensors(images).map(function).get_single_element()
    for other in (in_graph, mapped.numpy()):
        assert other.dtype == eager.dtype
        np.testing.assert_allclose(
            other.astype(float), eager.astype(float), rtol=1e-5, atol=1e-3
        )
    return eager


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_flip(tf, augment, height: int, width: int) -> None:
    images = pictures(height, width)
    mirrored = np.array([True, False, True, True, False])
    flipped = everywhere(tf, lambda batch: augment.flip(batch, mirrored), images)
    assert flipped.dtype == np.uint8
    expected = np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    np.testing.assert_array_equal(flipped, expected)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_crop_of_the_whole_picture_changes_nothing(
    tf, augment, height: int, width: int
) -> None:
    images = pictures(height, width)
    whole = np.tile(np.float32([0, 0, 1, 1]), (len(images), 1))
    cropped = everywhere(tf, lambda batch: augment.crop(batch, whole), images)
    assert cropped.dtype == np.float32
    np.testing.assert_allclose(cropped, images, atol=1e-3)


def test_crop_is_bilinear(tf, augment) -> None:
    """A ramp along both axes stays one: between the ends of its box."""
    height, width = 9, 13
    rows, columns = np.mgrid[0:height, 0:width]
    ramp = np.stack([10 * rows, 7 * columns, rows + columns], axis=-1)[None]
    boxes = np.float32([[0.25, 0.125, 0.75, 0.5]])
    cropped = everywhere(tf, lambda batch: augment.crop(batch, boxes), ramp)
    y = np.linspace(0.25, 0.75, height)[:, None] * (height - 1) + np.zeros(width)
    x = np.linspace(0.125, 0.5, width)[None] * (width - 1) + np.zeros((height, 1))
    expected = np.stack([10 * y, 7 * x, y + x], axis=-1)[None]
    np.testing.assert_allclose(cropped, expected, atol=1e-3)


@pytest.mark.parametrize("smallest", [0.05, 0.35, 0.99])
def test_boxes_lie_inside_and_keep_their_area(tf, augment, smallest: float) -> None:
    draws = np.random.default_rng(2).random((4, 20_000), np.float32)
    ends = np.float32(np.meshgrid([0, 1], [0, 1], [0, 1], [0, 1]))
    draws = np.concatenate([draws, ends.reshape(4, -1)], axis=1)
    top, left, bottom, right = augment.boxes(*draws, smallest).numpy().T
    assert min(top.min(), left.min()) >= 0
    assert max(bottom.max(), right.max()) <= 1
    areas, ratios = (bottom - top) * (right - left), (right - left) / (bottom - top)
    assert areas.min() >= smallest - 1e-4
    assert areas.max() <= 1
    assert areas.mean() == pytest.approx((smallest + 1) / 2, abs=0.01)
    assert np.abs(np.log(ratios)).max() <= np.log(4 / 3) + 1e-4
    assert np.log(ratios).mean() == pytest.approx(0, abs=0.01)


def test_no_crop_reaches_beyond_the_last_pixel(tf, augment) -> None:
    """White stays white at every edge: outside, the kernel would take black."""
    draws = np.random.default_rng(3).random((4, 512), np.float32)
    draws[2:, ::2] = 1  # the lower right corner
    white = np.full((512, 31, 17, 3), 255, np.uint8)
    cropped = augment.crop(white, augment.boxes(*draws, 0.1)).numpy()
    np.testing.assert_allclose(cropped, 255, atol=1e-2)


def test_brighten(tf, augment) -> None:
    images, added = pictures(6, 8), np.float32([0, 0.1, -0.1, 1, -1])
    brighter = everywhere(tf, lambda batch: augment.brighten(batch, added), images)
    expected = images + 255.0 * added[:, None, None, None]
    np.testing.assert_allclose(brighter, expected, atol=1e-3)


def test_contrast(tf, augment) -> None:
    images, factor = pictures(6, 8), np.float32([1, 0, 0.5, 1.5, 2])
    spread = everywhere(tf, lambda batch: augment.contrast(batch, factor), images)
    mean = images.mean((1, 2, 3), keepdims=True)
    expected = mean + factor[:, None, None, None] * (images - mean)
    np.testing.assert_allclose(spread, expected, atol=1e-2)


def test_saturate(tf, augment) -> None:
    images, factor = pictures(6, 8), np.float32([1, 0, 0.5, 1.5, 2])
    coloured = everywhere(tf, lambda batch: augment.saturate(batch, factor), images)
    grey = (images @ np.array([0.299, 0.587, 0.114]))[..., None]
    expected = grey + factor[:, None, None, None] * (images - grey)
    np.testing.assert_allclose(coloured, expected, atol=1e-2)


def test_draws_are_a_function_of_seed_and_step(tf, augment) -> None:
    drawn = []
    for global_seed, device in ((1, "CPU:0"), (2, "CPU:0"), (2, "CPU:1")):
        tf.random.set_seed(global_seed)
        with tf.device(device):
            drawn.append(augment.draws(7, 3, 64).numpy())
    drawn.append(tf.function(augment.draws)(7, tf.constant(3), 64).numpy())
    for other in drawn[1:]:
        np.testing.assert_array_equal(other, drawn[0])
    assert drawn[0].shape == (64, augment.DRAWS)
    assert 0 <= drawn[0].min() < drawn[0].max() < 1
    for seed, step in ((8, 3), (7, 4), (3, 7)):
        assert not np.array_equal(augment.draws(seed, step, 64), drawn[0])


def test_draws_are_uniform_and_independent(tf, augment) -> None:
    drawn = np.concatenate([augment.draws(0, step, 512) for step in range(20)])
    np.testing.assert_allclose(drawn.mean(axis=0), 0.5, atol=0.02)
    np.testing.assert_allclose(drawn.std(axis=0), 12**-0.5, atol=0.01)
    correlations = np.corrcoef(drawn.T) - np.eye(augment.DRAWS)
    assert np.abs(correlations).max() < 0.05


@pytest.mark.parametrize(
    ("augmentation", "dtype"),
    [
        (NO_AUGMENTATION, np.uint8),
        (Augmentation(flip=True), np.uint8),
        (Augmentation(crop=0.5), np.float32),
        (Augmentation(brightness=1), np.float32),
        (Augmentation(contrast=1), np.float32),
        (Augmentation(saturation=1), np.float32),
        (ALL, np.float32),
    ],
)
def test_apply_keeps_to_pixels(tf, augment, augmentation, dtype) -> None:
    images = pictures(12, 10, count=64)
    drawn = augment.draws(1, 2, 64)
    changed = everywhere(
        tf, lambda batch: augment.apply(batch, drawn, augmentation), images
    )
    assert changed.dtype == dtype
    assert changed.shape == images.shape
    assert 0 <= changed.min() < changed.max() <= 255
    if augmentation.changes:
        assert not np.array_equal(changed, images)
    else:
        np.testing.assert_array_equal(changed, images)


def test_apply_flips_the_half_of_them(tf, augment) -> None:
    images = pictures(6, 8, count=4_000)
    drawn = augment.draws(1, 2, len(images))
    flipped = augment.apply(images, drawn, Augmentation(flip=True)).numpy()
    mirrored = (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))
    untouched = (flipped == images).all(axis=(1, 2, 3))
    assert (mirrored ^ untouched).all()
    assert mirrored.mean() == pytest.approx(0.5, abs=0.03)


def test_flips_stay_when_others_join_them(tf, augment) -> None:
    """Left is black and right white, whatever brightness and crops make of it."""
    images = np.zeros((256, 8, 12, 3), np.uint8)
    images[:, :, 6:] = 255
    drawn = augment.draws(5, 9, len(images))

    def rising(augmentation: Augmentation) -> np.ndarray:
        changed = augment.apply(images, drawn, augmentation).numpy()
        return changed[:, 0, 0, 0] < changed[:, 0, -1, 0]

    flips = Augmentation(flip=True)
    brighter = Augmentation(flip=True, crop=0.9, brightness=0.3, contrast=0.3)
    np.testing.assert_array_equal(rising(brighter), rising(flips))
    assert 0.4 < rising(flips).mean() < 0.6


@pytest.mark.parametrize(
    ("field", "value"),
    [("crop", 0.0), ("crop", 1.1), ("brightness", -0.1), ("contrast", 1.5)],
)
def test_an_augmentation_validates_itself(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        Augmentation(**{field: value})
