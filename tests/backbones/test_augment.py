"""Augmentation of a whole batch, compared with torchvision and timm picture by picture."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from timm.data import auto_augment
from torchvision.transforms import InterpolationMode, RandomResizedCrop, v2
from torchvision.transforms.v2 import functional

from bob import backbones
from bob.backbones import _augment, _colours, _randaugment
from bob.backbones._randaugment import TIMM, TORCHVISION

STEP = 2.01 / 255  # two grey levels: theirs are rounded on the way


def pictures(count: int = 3, side: int = 24) -> torch.Tensor:
    """Smooth enough to be resampled, in whole grey levels."""
    small = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    large = torch.nn.functional.interpolate(small, size=(side, side), mode="bicubic").clamp(0, 1)
    return (large * 255).round() / 255


def augmented(images: torch.Tensor, step: _augment.Step) -> torch.Tensor:
    return _augment.augment(images, torch.Generator().manual_seed(0), [step])


def uint8(image: torch.Tensor) -> torch.Tensor:
    return (image * 255).round().to(torch.uint8)


THEIRS = {
    "brightness": lambda x, a: functional.adjust_brightness(x, a),
    "color": lambda x, a: functional.adjust_saturation(x, a),
    "contrast": lambda x, a: functional.adjust_contrast(x, a),
    "sharpness": lambda x, a: functional.adjust_sharpness(x, a),
    "solarize": lambda x, a: functional.solarize(x, 255 * a),
    "posterize": lambda x, a: functional.posterize(x, int(a)),
    "autocontrast": lambda x, a: functional.autocontrast(x),
    "equalize": lambda x, a: functional.equalize(x),
    "invert": lambda x, a: functional.invert(x),
    "rotate": lambda x, a: functional.rotate(x, a),
    "shear_x": lambda x, a: functional.affine(x, 0.0, [0, 0], 1.0, [np.degrees(np.arctan(a)), 0.0], center=[0.0, 0.0]),
    "shear_y": lambda x, a: functional.affine(x, 0.0, [0, 0], 1.0, [0.0, np.degrees(np.arctan(a))], center=[0.0, 0.0]),
    "translate_x": lambda x, a: functional.affine(x, 0.0, [round(24 * a), 0], 1.0, [0.0, 0.0]),
    "translate_y": lambda x, a: functional.affine(x, 0.0, [0, round(24 * a)], 1.0, [0.0, 0.0]),
}
AMOUNTS = {"posterize": (7.0, 4.0), "solarize": (0.7, 0.25), "rotate": (9.0, -27.0)}
AMOUNTS |= dict.fromkeys(("shear_x", "shear_y"), (0.09, -0.27)) | dict.fromkeys(
    ("translate_x", "translate_y"), (0.125, -0.25)
)


@pytest.mark.parametrize("name", THEIRS)
def test_an_operation_is_torchvisions(name):
    images = pictures(2)
    amounts = AMOUNTS.get(name, (1.27, 0.4))
    given = _randaugment.parameters(name, torch.tensor(amounts))
    made = _randaugment.apply(name, images, given, TORCHVISION)
    for one, image, amount in zip(made, images, amounts, strict=True):
        wanted = THEIRS[name](uint8(image), amount).float() / 255
        if name not in _randaugment._WARPS:
            assert (one - wanted).abs().max() <= STEP, name
            continue
        # The sign of a turn is drawn, and a nearest pixel may be the other one where two are as near.
        other = THEIRS[name](uint8(image), -amount).float() / 255
        differ = min(((one - w).abs().amax(0) > STEP).float().mean().item() for w in (wanted, other))
        assert differ < 0.1, (name, differ)


def test_solarize_add_is_timms():
    image = pictures(1)
    given = _randaugment.parameters("solarize_add", torch.tensor([99 / 255]))
    made = _randaugment.apply("solarize_add", image, given, TIMM)[0]
    theirs = auto_augment.solarize_add(Image.fromarray(uint8(image[0]).permute(1, 2, 0).numpy()), 99)
    assert np.abs(made.permute(1, 2, 0).numpy() * 255 - np.asarray(theirs)).max() <= 1


@pytest.mark.parametrize("policy", [TORCHVISION, TIMM])
def test_every_operation_is_drawn_and_keeps_the_range(policy):
    images = pictures(400, side=8)
    made = augmented(images, _randaugment.RandAugment(policy=policy))
    assert made.shape == images.shape
    assert made.min() >= 0
    assert made.max() <= 1
    unchanged = (made - images).abs().amax((1, 2, 3)) < STEP
    expected = 0.25 if policy is TIMM else 1 / 196  # neither of two applied at chance 1/2; both the identity
    assert unchanged.float().mean() >= expected * 0.7
    assert unchanged.float().mean() < 0.6
    names = {name for name in policy.operations if name != "identity"}
    assert names == set(_randaugment._WARPS) | set(_randaugment._COLOURS) - ({"invert", "solarize_add"} - names)


def test_strengths_are_those_of_the_two_libraries():
    level, sign = torch.tensor([0.3]), torch.tensor([1.0])
    bins = v2.RandAugment._AUGMENTATION_SPACE
    for name, theirs in (
        ("brightness", "Brightness"),
        ("shear_x", "ShearX"),
        ("rotate", "Rotate"),
        ("translate_x", "TranslateX"),
    ):
        value = float(bins[theirs][0](31, 331, 331)[9]) / (331 if name == "translate_x" else 1) + (name == "brightness")
        assert float(_randaugment._amount(name, level, sign, TORCHVISION)) == pytest.approx(value, rel=1e-5)
    assert float(_randaugment._amount("posterize", level, sign, TORCHVISION)) == 7
    assert float(_randaugment._amount("solarize", level, sign, TORCHVISION)) == pytest.approx(0.7)
    level = torch.tensor([0.9])
    for name, theirs in (
        ("posterize", "PosterizeIncreasing"),
        ("solarize", "SolarizeIncreasing"),
        ("solarize_add", "SolarizeAdd"),
    ):
        (value, *_) = auto_augment.LEVEL_TO_ARG[theirs](9, {})
        scale = 1 if name == "posterize" else 255
        assert float(_randaugment._amount(name, level, sign, TIMM)) == pytest.approx(value / scale, abs=0.005), name
    (value,) = auto_augment.LEVEL_TO_ARG["ShearX"](9, {})
    assert float(_randaugment._amount("shear_x", level, sign, TIMM)) == pytest.approx(abs(value))


@pytest.mark.parametrize(("box", "size"), [((2, 3, 18, 20), 12), ((0, 0, 24, 24), 7), ((5, 6, 6, 7), 16)])
def test_a_crop_is_resized_as_torchvision_does(box, size):
    images = pictures(1)
    top, left, height, width = (torch.tensor([float(value)]) for value in box)
    rows, columns = _augment.filters(top, height, 24, size), _augment.filters(left, width, 24, size)
    made = rows.float()[:, None] @ images @ columns.float()[:, None].mT
    wanted = functional.resized_crop(images, *box, [size, size], InterpolationMode.BICUBIC, antialias=True)
    assert torch.allclose(made, wanted, atol=2e-4)


def test_crops_have_the_wanted_areas_and_lie_inside():
    crop = _augment.ResizedCrop(size=7, scale=(0.25, 1.0))
    top, left, height, width = crop.draw(4000, 100, torch.Generator().manual_seed(0)).unbind(1)
    assert (top >= 0).all()
    assert (top + height <= 100).all()
    assert (left >= 0).all()
    assert (left + width <= 100).all()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pick = RandomResizedCrop.get_params
        theirs = torch.tensor([pick(torch.zeros(3, 100, 100), [0.25, 1.0], [3 / 4, 4 / 3]) for _ in range(2000)]).T
    for mine, their in (
        (height * width, theirs[2] * theirs[3]),
        (width / height, theirs[3] / theirs[2]),
        (left, theirs[1]),
    ):
        their = their.double()
        assert mine.mean() == pytest.approx(float(their.mean()), abs=0.1 * float(their.std()))
        assert mine.std() == pytest.approx(float(their.std()), rel=0.06)
        assert mine.min() >= their.min() * 0.97
        assert mine.max() <= their.max() * 1.03


def test_the_hue_turns_as_torchvisions():
    images = pictures(2)
    made = _colours.turn_hue(images, torch.tensor([0.1, -0.07]).view(2, 1, 1, 1))
    for one, image, by in zip(made, images, (0.1, -0.07), strict=True):
        assert torch.allclose(one, functional.adjust_hue(image, by), atol=1e-4)


def test_a_blur_is_torchvisions_inside():
    images = pictures(1)
    made = augmented(images, _augment.Blur(sigma=(1.5, 1.5), chance=1.0))
    wanted = functional.gaussian_blur(images, [13, 13], [1.5, 1.5])
    assert torch.allclose(made[..., 6:-6, 6:-6], wanted[..., 6:-6, 6:-6], atol=1e-3)
    assert torch.equal(augmented(images, _augment.Blur(sigma=(1.5, 1.5), chance=0.0)), images)


def test_erasing_hides_a_box_in_some():
    images = torch.full((400, 3, 20, 20), 0.25)
    made = augmented(images, _augment.Erase(chance=0.25, mean=(0.5,) * 3, std=(0.1,) * 3))
    changed = (made != images).any(1)
    hit = changed.flatten(1).any(1)
    assert hit.float().mean() == pytest.approx(0.25, abs=0.06)
    shares = changed[hit].float().mean((1, 2))
    assert 0.01 < shares.min() < 0.05
    assert 0.28 < shares.max() < 0.38
    noise = made[(made != images)]
    assert noise.mean() == pytest.approx(0.5, abs=0.02)
    assert noise.std() == pytest.approx(0.1, abs=0.02)


def test_colours_are_jittered_about_the_picture():
    images = pictures(1).expand(200, -1, -1, -1)
    some = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}
    made = augmented(images, _colours.ColourJitter(**some, chance=0.8))
    same = (made == images).flatten(1).all(1).float().mean()
    assert same == pytest.approx(0.2, abs=0.1)
    assert made.mean() == pytest.approx(images.mean().item(), abs=0.03)
    grey = ImageOps.grayscale(Image.fromarray(uint8(images[0]).permute(1, 2, 0).numpy()))
    assert np.abs(_colours.grey(images[:1])[0, 0].numpy() * 255 - np.asarray(grey)).max() <= 1


# -- the batch --------------------------------------------------------------------------------------


def large(name: str, count: int) -> torch.Tensor:
    """Pictures as the trainer makes them of decoded ones, channels last."""
    images = pictures(count, side=backbones.load(name).kept)
    return images.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["resnet50", "mae_vit_b16"])
def test_chunks_of_a_batch_give_the_bits_of_the_whole(name, monkeypatch):
    """Filters of a whole batch fill no cache, and took seven times as long."""
    parts, augment, images = [], backbones.load(name).augment, large(name, 11)
    original = _augment._together

    def together(*given, many):
        parts.append(many)
        return original(*given, many=many)

    monkeypatch.setattr(_augment, "_together", together)
    chunked = augment(images, torch.Generator().manual_seed(3))
    assert 2 in parts
    monkeypatch.setattr(_augment, "_CACHE", 1 << 40)
    whole = augment(images, torch.Generator().manual_seed(3))
    assert torch.equal(chunked, whole)


def reference_crop(images: torch.Tensor, box: torch.Tensor, size: int) -> torch.Tensor:
    """Of each picture by itself, in float64: the filter written as a sum over pixels."""
    made = []
    for image, (top, left, high, wide) in zip(images.double(), box.double(), strict=True):
        axes = []
        for start, length, side in ((top, high, images.shape[-2]), (left, wide, images.shape[-1])):
            ratio = length / size
            centre = start + (torch.arange(size).double() + 0.5) * ratio
            x = ((torch.arange(side).double() + 0.5)[None] - centre[:, None]).abs() / max(1.0, float(ratio))
            near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
            weight = near * (x < 1) + far * ((x >= 1) & (x < 2))
            weight[:, : int(start)] = 0
            weight[:, int(start + length) :] = 0
            axes.append(weight / weight.sum(1, keepdim=True))
        made.append(axes[0] @ image @ axes[1].T)
    return torch.stack(made).clamp(0, 1).float()


def test_float32_filters_of_a_gpu_are_as_good():
    images, crop = pictures(6, side=320), _augment.ResizedCrop(size=224, scale=(0.08, 1.0))
    box = crop.draw(6, 320, torch.Generator().manual_seed(0)).float()
    wanted = reference_crop(images, box, 224)
    assert torch.allclose(augmented(images, crop), wanted, atol=2e-6)
    top, left, high, wide = box.unbind(1)
    rows, columns = _augment.filters(top, high, 320, 224), _augment.filters(left, wide, 320, 224)
    assert torch.allclose((rows[:, None] @ images @ columns[:, None].mT).clamp(0, 1), wanted, atol=2e-5)


def test_numbers_of_a_batch_are_drawn_in_the_order_of_the_steps():
    """So a step more at the end changes nothing of what comes before."""
    images, steps = pictures(16), (_augment.Flip(), _augment.Shift(reach=3))
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    by_one = images
    for step in steps:
        by_one = _augment.augment(by_one, generators[0], [step])
    assert torch.equal(by_one, _augment.augment(images, generators[1], steps))
    assert torch.equal(generators[0].get_state(), generators[1].get_state())
