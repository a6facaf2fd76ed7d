"""Packed pixels, against the value of their bytes and one another."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewlabels.data.gather import Gather
from fewlabels.data.store import Store
from fewlabels.runtime.rgb import pack, spread, unpack


def random(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8))


def worth(images: torch.Tensor) -> np.ndarray:
    """The words of images of one or three channels, int64 ``[N, H*W]``."""
    n, h, w, _ = images.shape
    colours = np.broadcast_to(images.numpy().astype(np.int64), (n, h, w, 3))
    return (colours @ [1, 256, 65536]).reshape(n, h * w)


DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 1, 2), (2, 3, 5), (7, 8, 8), (0, 4, 4)])
def test_words_of_bytes(size: tuple[int, int, int], channels: int, device: str) -> None:
    images = random(*size, channels)
    packed = pack(images.to(device)).cpu()
    assert packed.dtype == torch.int32 and packed.shape == (size[0], size[1] * size[2])
    assert np.array_equal(packed.numpy(), worth(images))
    assert torch.equal(unpack(packed, (channels, *size[1:])), images)


@pytest.mark.parametrize("channels", [1, 3])
def test_scattered_images(channels: int) -> None:
    """Planes, mirrored images, and a part whose first byte lies at an odd address."""
    planes = random(4, channels, 6, 5)
    for images in (
        planes.permute(0, 2, 3, 1),
        random(4, 6, 5, channels).flip(2),
        random(4, 6, 5, channels)[1:, 1:, 1:],
    ):
        assert np.array_equal(pack(images).numpy(), worth(images))


def test_the_extremes() -> None:
    white = torch.full((2, 2, 2, 3), 255, dtype=torch.uint8)
    assert pack(white).unique().tolist() == [0xFFFFFF] and pack(white - 255).unique().tolist() == [0]
    assert spread(torch.tensor([0, 1, 255], dtype=torch.uint8)).tolist() == [0, 0x010101, 0xFFFFFF]


def test_packed_pixels_are_no_view() -> None:
    images = random(2, 3, 3, 3)
    packed, before = pack(images), worth(images)
    images.zero_()
    assert np.array_equal(packed.numpy(), before)


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channels_stay_bytes(channels: int) -> None:
    images = random(3, 4, 5, channels)
    packed = pack(images)
    assert packed.dtype == torch.uint8 and packed.shape == (3, 20, channels)
    assert torch.equal(unpack(packed, (channels, 4, 5)), images)


@pytest.mark.parametrize("images", [torch.zeros(2, 2, 2, 3), torch.zeros(2, 2, 3, dtype=torch.uint8)])
def test_what_is_no_image(images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="images must be uint8 of dimensions N, H, W, C, not torch"):
        pack(images)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_stores_give_packed_pixels(channels: int) -> None:
    images, rows = random(9, 4, 3, channels), torch.tensor([8, 0, 3, 3])
    read_only = images.numpy().copy()
    read_only.flags.writeable = False
    for store in (Store(read_only), Gather(read_only)):
        assert torch.equal(store.take(rows), pack(images[rows]))
