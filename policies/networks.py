"""Stacks of small networks: S networks of one shape, each a row of one matrix.

A row holds all parameters of one network, so that resetting, saving, exporting and Adam's moments
are row operations. The rollout reads the same memory through numpy that torch updates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Stack:
    """S multi-layer perceptrons with tanh between the layers, and `extra` free parameters each.

    Args:
        count: S.
        sizes: inputs, hidden sizes, outputs.
        extra: free parameters at the end of each row, for example a log standard deviation.
    """

    def __init__(self, count: int, sizes: Sequence[int], extra: int = 0) -> None:
        self.count, self.sizes, self.extra = count, tuple(sizes), extra
        self._shapes = [shape for i, o in pairwise(sizes) for shape in ((i, o), (1, o))]
        self._lengths = [i * o for i, o in self._shapes] + ([extra] if extra else [])
        self.parameters = torch.zeros(count, sum(self._lengths))  # (S, P)
        self.numpy = self.parameters.numpy()  # the same memory

    def initialise(
        self, row: int, rng: np.random.Generator, *, output_gain: float, extra: float = 0.0
    ) -> None:
        """Orthogonal weights for network `row`: gain sqrt(2) inside, `output_gain` at the end."""
        parts = []
        layers = list(pairwise(self.sizes))
        for index, (inputs, outputs) in enumerate(layers):
            gain = output_gain if index == len(layers) - 1 else math.sqrt(2)
            square = rng.standard_normal((max(inputs, outputs), min(inputs, outputs)))
            q, r = np.linalg.qr(square)
            q *= np.sign(np.diag(r))
            weight = gain * (q if inputs >= outputs else q.T)
            parts += [weight.ravel(), np.zeros(outputs)]
        parts.append(np.full(self.extra, extra))
        self.numpy[row] = np.concatenate(parts)

    def layers(self, row: int) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Weights (in, out) and biases (out,) of network `row`, as views."""
        views, start = [], 0
        for shape, length in zip(self._shapes, self._lengths, strict=False):
            views.append(self.numpy[row, start : start + length].reshape(shape))
            start += length
        return [(w, b[0]) for w, b in zip(views[::2], views[1::2], strict=True)]

    def extras(self, row: int) -> NDArray[np.float32]:
        """The free parameters of network `row`, as a view."""
        return self.numpy[row, self.numpy.shape[1] - self.extra :]

    def forward_row(self, row: int, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Network `row` on x (n, in), in numpy: (n, out)."""
        *hidden, (weight, bias) = self.layers(row)
        for w, b in hidden:
            x = np.tanh(x @ w + b)
        return x @ weight + bias

    def forward_numpy(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """All networks on x (S, n, in), in numpy: (S, n, out)."""
        start = 0
        last = len(self._shapes) - 2
        for i in range(0, len(self._shapes), 2):
            weight, bias = (
                self.numpy[:, start + offset : start + offset + length].reshape(-1, *shape)
                for offset, length, shape in (
                    (0, self._lengths[i], self._shapes[i]),
                    (self._lengths[i], self._lengths[i + 1], self._shapes[i + 1]),
                )
            )
            x = np.matmul(x, weight) + bias
            if i < last:
                x = np.tanh(x)
            start += self._lengths[i] + self._lengths[i + 1]
        return x

    def forward(self, parameters: Tensor, x: Tensor) -> Tensor:
        """All networks on x (S, n, in), in torch: (S, n, out). Differentiates by `parameters`."""
        parts = torch.split(parameters, self._lengths, dim=1)
        views = [p.reshape(-1, *s) for p, s in zip(parts, self._shapes, strict=False)]
        last = len(views) - 2
        for i in range(0, len(views), 2):
            x = torch.baddbmm(views[i + 1], x, views[i])
            if i < last:
                x = torch.tanh(x)
        return x

    def free(self, parameters: Tensor) -> Tensor:
        """The free parameters (S, extra)."""
        return parameters[:, parameters.shape[1] - self.extra :]


class Adam:
    """Adam whose rows are independent: each has its own step count and can be reset alone."""

    def __init__(
        self,
        parameters: Tensor,
        learning_rate: float,
        epsilon: float = 1e-8,
        beta1: float = 0.9,
        beta2: float = 0.999,
    ) -> None:
        self.parameters, self.learning_rate, self.epsilon = parameters, learning_rate, epsilon
        self.beta1, self.beta2 = beta1, beta2
        self.first = torch.zeros_like(parameters)
        self.second = torch.zeros_like(parameters)
        self.steps = torch.zeros(len(parameters), 1)

    def step(self, gradient: Tensor, active: Tensor) -> None:
        """Update the rows where `active` (S,) holds; the others do not move."""
        rows = active[:, None]
        self.steps += rows
        self.first.copy_(torch.where(rows, self.first.lerp(gradient, 1 - self.beta1), self.first))
        square = gradient * gradient
        self.second.copy_(torch.where(rows, self.second.lerp(square, 1 - self.beta2), self.second))
        count = self.steps.clamp(min=1)
        mean = self.first / (1 - self.beta1**count)
        deviation = (self.second / (1 - self.beta2**count)).sqrt() + self.epsilon
        self.parameters -= self.learning_rate * rows * mean / deviation

    def reset(self, row: int) -> None:
        """Forget the moments of one row."""
        for tensor in (self.first, self.second, self.steps):
            tensor[row] = 0


class Normaliser:
    """Running mean and variance of observations; frozen together with the skills."""

    CLIP = 10.0
    MIN_VARIANCE = 1e-4

    def __init__(self, size: int) -> None:
        self.count = 0.0
        self.mean = np.zeros(size)
        self.square = np.zeros(size)  # sum of squared deviations
        self.fixed: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def update(self, x: NDArray[np.float32]) -> None:
        """Take in observations (..., O)."""
        x = x.reshape(-1, len(self.mean)).astype(np.float64)
        n, mean = len(x), x.mean(axis=0)
        total = self.count + n
        delta = mean - self.mean
        self.square += ((x - mean) ** 2).sum(axis=0) + delta**2 * self.count * n / total
        self.mean += delta * n / total
        self.count = total

    @property
    def shift_and_scale(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(O,) each: normalised = clip((x - shift) * scale, -CLIP, CLIP)."""
        if self.fixed is not None:  # read from a bundle
            return self.fixed
        if self.count == 0:
            return np.zeros(len(self.mean), np.float32), np.ones(len(self.mean), np.float32)
        variance = np.maximum(self.square / self.count, self.MIN_VARIANCE)
        return self.mean.astype(np.float32), (1 / np.sqrt(variance)).astype(np.float32)

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Normalised observations, float32."""
        shift, scale = self.shift_and_scale
        out: NDArray[np.float32] = np.clip((x - shift) * scale, -self.CLIP, self.CLIP)
        return out
