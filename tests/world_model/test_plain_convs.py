"""The convolutions of V1 and V2: their shapes, their arithmetic, and which images they take."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.agent import Agent
from dreamer_agent.config import load_config
from dreamer_agent.errors import ConfigError
from dreamer_agent.nets import Style, from_linen
from dreamer_agent.specs import ArraySpec
from dreamer_agent.world_model.plain_convs import PlainDecoder, PlainEncoder
from tests.compiling import quick_jit
from tests.conftest import random_batch, small_config

KEY = jax.random.PRNGKey(0)
PLAIN = Style("relu", "none")
ACT = {"button": ArraySpec("discrete", (), 3)}


def test_sizes_are_those_of_v2():
    encoder, decoder = PlainEncoder(48, PLAIN, jnp.float32), PlainDecoder(48, 3, PLAIN, jnp.float32)
    params, features = jax.eval_shape(encoder.init, KEY, jnp.zeros((1, 64, 64, 3))), jnp.zeros((5, 1224))
    assert jax.eval_shape(encoder.apply, params, jnp.zeros((5, 64, 64, 3))).shape == (5, 2 * 2 * 384)
    kernels = [params["params"][f"conv{i}"]["kernel"].shape for i in range(4)]
    assert kernels == [(4, 4, 3, 48), (4, 4, 48, 96), (4, 4, 96, 192), (4, 4, 192, 384)]
    params = jax.eval_shape(decoder.init, KEY, features)
    assert jax.eval_shape(decoder.apply, params, features).shape == (5, 64, 64, 3)
    kernels = [params["params"][name]["kernel"].shape for name in ("conv0", "conv1", "conv2", "image")]
    assert kernels == [(5, 5, 1536, 192), (5, 5, 192, 96), (6, 6, 96, 48), (6, 6, 48, 3)]


def test_the_first_encoded_pixel_by_hand():
    net = from_linen(PlainEncoder(1, Style("elu", "none"), jnp.float32))
    x = jax.random.normal(KEY, (1, 64, 64, 2))
    params = net.init(KEY, x)
    # One 2 x 2 map of 8 channels; its first pixel sees the pixels 0 to 45 of every side.
    seen = quick_jit(net.apply)
    first = slice(0, 8)
    np.testing.assert_array_equal(seen(params, x.at[:, 46:].set(9.0))[0, first], seen(params, x)[0, first])
    assert (seen(params, x.at[:, 45, :4].set(50.0))[0, first] != seen(params, x)[0, first]).any()


def test_a_decoder_reaches_every_pixel():
    net = from_linen(PlainDecoder(1, 1, Style("elu", "none"), jnp.float32))
    params = net.init(KEY, jnp.zeros((1, 4)))
    image = quick_jit(net.apply)(params, jax.random.normal(KEY, (2, 4)))
    assert image.shape == (2, 64, 64, 1) and (image[0] != image[1]).all()


@pytest.mark.parametrize("name", ["v1", "v2"])
def test_presets_learn_from_images_of_their_size(name):
    agent = Agent.create(load_config([name]), {"camera": ArraySpec("image", (64, 64, 3))}, ACT)
    state = jax.eval_shape(agent.init, KEY)
    assert "loss/rec/camera" in jax.eval_shape(agent.update, state, random_batch(agent))[2]
    depth = agent.config.model.depth
    assert state.params["encoder"]["image0"]["conv3"]["kernel"].shape == (4, 4, 4 * depth, 8 * depth)


def test_other_sizes_are_refused_in_a_sentence():
    obs = {"camera": ArraySpec("image", (16, 12, 3))}
    with pytest.raises(ConfigError, match=r"images of 64x64, but one has 16x12: set model.convs=pooled"):
        Agent.create(small_config("model.convs=plain"), obs, ACT)
