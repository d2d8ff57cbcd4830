"""Convolutions that halve or double an image, computed on the smaller of the two images.

Every pixel of the larger image is one of 2 x 2 phases (p, q) of a pixel of the smaller one. A k x k kernel that
reads or writes the larger image is a smaller kernel between the smaller image and the phases as channels. That is
the same sum in another order (Shi et al., arXiv 1609.07009, show it for upsampling), with the same parameters.
For k = 5 an upsampling convolution needs 36 products where the plain form needs 100, and few channels become four
times as many, which is what matrix units want.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent.nets.blocks import truncated_normal

Array = jax.Array
FEW_CHANNELS = 16  # up to here the phases of a pooled convolution pay for their 1.44 times as many products


class PooledConv(nn.Module):
    """Convolution, then the largest of every 2 x 2 pixels; parameters as those of `nn.Conv`."""

    features: int
    kernel: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[N, H, W, C]` to `[N, ceil(H / 2), ceil(W / 2), features]`."""
        kernel, bias = _parameters(self, x.shape[-1])
        x = x.astype(self.dtype)
        even = x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0
        if even and self.features <= FEW_CHANNELS:
            taps, padding = phase_taps(self.kernel)
            merged = jnp.einsum("parj,qbsk,jkio->abrsiopq", taps, taps, kernel, precision="highest")
            merged = merged.reshape(*merged.shape[:2], 4 * x.shape[-1], 4 * self.features).astype(self.dtype)
            y = _convolve(space_to_depth(x), merged, [padding] * 2)
            y = y.reshape(*y.shape[:-1], self.features, 4).max(-1)
        else:
            y = _convolve(x, kernel.astype(self.dtype), "SAME")
            y = _pool(y) if even else nn.max_pool(y, (2, 2), (2, 2), "SAME")
        return y + bias  # after the maximum, which it does not change


class UpsampledConv(nn.Module):
    """Every pixel repeated 2 x 2 times, then a convolution; parameters as those of `nn.Conv`."""

    features: int
    kernel: int
    size: tuple[int, int]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[N, H, W, C]` to `[N, *size, features]`, where `size` is (2 H, 2 W) or cut from that."""
        kernel, bias = _parameters(self, x.shape[-1])
        x = x.astype(self.dtype)
        height, width = self.size
        if (height, width) == (2 * x.shape[1], 2 * x.shape[2]):
            taps, padding = phase_taps(self.kernel)
            taps = taps.sum(2)  # both phases of the input are the same pixel
            merged = jnp.einsum("paj,qbk,jkio->abipqo", taps, taps, kernel, precision="highest")
            merged = merged.reshape(*merged.shape[:3], -1).astype(self.dtype)
            y = depth_to_space(_convolve(x, merged, [padding] * 2))
        else:
            x = x.repeat(2, -2).repeat(2, -3)[:, :height, :width]
            y = _convolve(x, kernel.astype(self.dtype), "SAME")
        return y + bias


@cache
def phase_taps(kernel: int) -> tuple[np.ndarray, tuple[int, int]]:
    """How a kernel of `kernel` taps along one axis looks from the halved axis, and the padding there.

    `taps[p, a, r, j]` is 1 where tap j, at phase p of the output, meets phase r of the input a pixels after the
    first one that is met.
    """
    before = (kernel - 1) // 2  # as "SAME" pads
    reached = np.arange(2)[:, None] + np.arange(kernel) - before
    pixel, phase = reached // 2, reached % 2
    taps = np.zeros((2, pixel.max() - pixel.min() + 1, 2, kernel), np.float32)
    out, tap = np.indices(reached.shape)
    taps[out, pixel - pixel.min(), phase, tap] = 1
    return taps, (-int(pixel.min()), int(pixel.max()))


def space_to_depth(x: Array) -> Array:
    """`[N, 2 H, 2 W, C]` to `[N, H, W, 2 * 2 * C]`: the phases of every 2 x 2 pixels as channels."""
    n, height, width, channels = x.shape
    x = x.reshape(n, height // 2, 2, width // 2, 2, channels).swapaxes(2, 3)
    return x.reshape(n, height // 2, width // 2, 4 * channels)


def depth_to_space(x: Array) -> Array:
    """The inverse of `space_to_depth`."""
    n, height, width, channels = x.shape
    x = x.reshape(n, height, width, 2, 2, channels // 4).swapaxes(2, 3)
    return x.reshape(n, 2 * height, 2 * width, channels // 4)


def _pool(x: Array) -> Array:
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).max((2, 4))


def _convolve(x: Array, kernel: Array, padding: Any) -> Array:
    """A convolution with stride one; `padding` is "SAME" or a pair for each axis."""
    if padding == "SAME":
        padding = [((k - 1) // 2, k // 2) for k in kernel.shape[:2]]
    pairs = tuple(map(tuple, padding))
    return _convolve_on_cpu(x, kernel, pairs) if jax.default_backend() == "cpu" else _plain(x, kernel, pairs)


def _plain(x: Array, kernel: Array, padding: Any) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve_on_cpu(x: Array, kernel: Array, padding: Any) -> Array:
    """`_plain` with gradients that are plain convolutions, too.

    Inside of loops XLA's CPU backend hands only those to its library (jax 0.10.2); what `jax.grad` writes was
    computed 26 times (kernel) and 4 times (input) slower there.
    """
    return _plain(x, kernel, padding)


def _forward(x: Array, kernel: Array, padding: Any) -> tuple[Array, tuple[Array, Array]]:
    return _plain(x, kernel, padding), (x, kernel)


def _backward(padding: Any, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    """The input's gradient sees the kernel from behind; the kernel's is a convolution over the batch."""
    x, kernel = saved
    mirrored = [(k - 1 - low, k - 1 - high) for k, (low, high) in zip(kernel.shape, padding, strict=False)]
    dx = _plain(dy, kernel[::-1, ::-1].swapaxes(2, 3), mirrored)
    dkernel = _plain(x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3), padding)
    return dx, dkernel.transpose(1, 2, 0, 3)


_convolve_on_cpu.defvjp(_forward, _backward)


def _parameters(module: Any, channels: int) -> tuple[Array, Array]:
    """A float32 kernel `[k, k, channels, features]` and a bias in the module's type."""
    shape = (module.kernel, module.kernel, channels, module.features)
    kernel = module.param("kernel", truncated_normal(), shape)
    bias = module.param("bias", nn.initializers.zeros_init(), (module.features,))
    return kernel, bias.astype(module.dtype)
