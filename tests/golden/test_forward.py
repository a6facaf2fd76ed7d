"""The nets of google-research/fixmatch and CADR against the originals, on the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_recipe import entries, fill, images, net, statistics

FORWARD = entries("forward")


def close(ours: torch.Tensor, theirs: list) -> None:
    """Within 2e-5 of the largest absolute value of the expected array (float32 sums of many terms)."""
    expected = np.array(theirs, dtype=np.float64)
    np.testing.assert_allclose(ours.detach().double().numpy(), expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", FORWARD)
def test_net(name: str) -> None:
    golden = FORWARD[name]
    config = golden["config"]
    model = net(config, config["nclass"])
    names, shapes = zip(*golden["variables"], strict=True)
    fill(list(model.parameters()), list(names), list(shapes))
    x = images(1, config["batch"], config["hw"], config["hw"], 3)

    model.eval()
    close(model(x), golden["logits_eval_initial_stats"])
    assert float(model.features(x).detach().sum()) == pytest.approx(golden["embeds_eval_sum"], rel=2e-5)
    if "logits_train" not in golden:
        return  # of shake, which draws random numbers
    model.train()
    close(model(x), golden["logits_train"])
    model.eval()
    close(model(x), golden["logits_eval_after_one_update"])
    ours = statistics(model)
    assert ours.keys() == golden["moving_stats_after_one_update"].keys()
    for key, expected in golden["moving_stats_after_one_update"].items():
        # 0.1 % of a batch statistic each, whose share TensorFlow rounds as 1 - 0.999 in float32
        np.testing.assert_allclose(ours[key][: len(expected)].numpy(), expected, rtol=5e-5, atol=1e-8, err_msg=key)
