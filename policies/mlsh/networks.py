"""Stacked MLPs: S networks of one shape, their parameters as rows of one matrix.

Their sizes and the function between their layers are settings of the section `network`;
`actor_critic.py` makes skills and masters of them.

A row holds all parameters of one network, so that resetting, saving, exporting and Adam's moments
are row operations. Gradients are by hand: `activations`, then `backward`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# Adds up an array over all processes that learn together.
AllReduce = Callable[[NDArray[np.float64]], NDArray[np.float64]]
Activation = Literal["tanh", "elu"]
Float32 = NDArray[np.float32]


def no_reduce(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """All-reduce of a single process: its sums are the totals."""
    return sums


def activate(kind: Activation, x: Float32) -> Float32:
    """The activation of `x`, in its place: tanh, or the exponential linear unit with alpha 1."""
    if kind == "tanh":
        return np.tanh(x, out=x)
    below = np.expm1(np.minimum(x, 0))
    np.maximum(x, 0, out=x)
    x += below
    return x


def activation_slope(kind: Activation, y: Float32) -> Float32:
    """The derivative of an activation where its value is `y`."""
    return 1 - y * y if kind == "tanh" else np.minimum(y, 0) + 1


class StackedMLP:
    """S multi-layer perceptrons and `log_stds` further parameters of each.

    Args:
        count: S.
        sizes: inputs, hidden sizes, outputs.
        log_stds: log standard deviations at the end of each row, independent of the inputs.
        masked_inputs: inputs that the networks do not see: their weights are zero and stay so.
        activation: function between the layers.
    """

    def __init__(
        self,
        count: int,
        sizes: Sequence[int],
        log_stds: int = 0,
        masked_inputs: Sequence[int] = (),
        activation: Activation = "tanh",
    ) -> None:
        self.count, self.sizes, self.activation = count, tuple(sizes), activation
        self.log_stds, self.masked_inputs = log_stds, list(masked_inputs)
        self._shapes = [shape for i, o in pairwise(sizes) for shape in ((i, o), (1, o))]
        self._lengths = [i * o for i, o in self._shapes] + ([log_stds] if log_stds else [])
        self.numpy = np.zeros((count, sum(self._lengths)), np.float32)  # (S, P)

    def initialize(
        self, row: int, rng: np.random.Generator, *, output_gain: float, log_std: float = 0.0
    ) -> None:
        """Initialize network `row` orthogonally: gain sqrt(2) inside, `output_gain` at the end."""
        parts = []
        layers = list(pairwise(self.sizes))
        for index, (inputs, outputs) in enumerate(layers):
            gain = output_gain if index == len(layers) - 1 else math.sqrt(2)
            square = rng.standard_normal((max(inputs, outputs), min(inputs, outputs)))
            q, r = np.linalg.qr(square)
            q *= np.sign(np.diag(r))
            weight = gain * (q if inputs >= outputs else q.T)
            parts += [weight.ravel(), np.zeros(outputs)]
        parts.append(np.full(self.log_stds, log_std))
        self.numpy[row] = np.concatenate(parts)
        self.layers(row)[0][0][self.masked_inputs] = 0

    def layers(self, row: int) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Weights (in, out) and biases (out,) of network `row`, as views."""
        views, start = [], 0
        for shape, length in zip(self._shapes, self._lengths, strict=False):
            views.append(self.numpy[row, start : start + length].reshape(shape))
            start += length
        return [(w, b[0]) for w, b in zip(views[::2], views[1::2], strict=True)]

    def log_std(self, row: int) -> NDArray[np.float32]:
        """The log standard deviations of network `row`, as a view."""
        return self.numpy[row, self.numpy.shape[1] - self.log_stds :]

    def forward_row(self, row: int, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Network `row` on x (n, in), in numpy: (n, out)."""
        *hidden, (weight, bias) = self.layers(row)
        for w, b in hidden:
            x = activate(self.activation, x @ w + b)
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
                x = activate(self.activation, x)
            start += self._lengths[i] + self._lengths[i + 1]
        return x

    def activations(self, row: int, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Input of each layer of network `row` for x (n, in), and the output (n, out)."""
        *hidden, (weight, bias) = self.layers(row)
        saved = [x]
        for w, b in hidden:
            y = saved[-1] @ w
            y += b
            saved.append(activate(self.activation, y))
        return [*saved, saved[-1] @ weight + bias]

    def backward(
        self,
        row: int,
        saved: list[NDArray[np.float32]],
        slope: NDArray[np.float32],
        log_std: NDArray[np.generic] | None = None,
    ) -> NDArray[np.float32]:
        """(P,) gradient with respect to the parameters of network `row`.

        Args:
            row: which network.
            saved: its `activations`.
            slope: (n, out) gradient by its output.
            log_std: (log_stds,) gradient by its log standard deviations.
        """
        gradient = np.zeros(self.numpy.shape[1], np.float32)
        end = len(gradient) - self.log_stds
        if log_std is not None:
            gradient[end:] = log_std
        for layer, (weight, bias) in reversed(list(enumerate(self.layers(row)))):
            begin = end - weight.size - bias.size
            np.matmul(
                saved[layer].T,
                slope,
                out=gradient[begin : begin + weight.size].reshape(weight.shape),
            )
            gradient[end - bias.size : end] = slope.sum(axis=0)
            end = begin
            if layer:
                slope = slope @ weight.T
                slope *= activation_slope(self.activation, saved[layer])
        if self.masked_inputs:
            gradient[: self._lengths[0]].reshape(self._shapes[0])[self.masked_inputs] = 0
        return gradient


class Adam:
    """Adam whose rows are independent: each has its own step count and can be reset alone.

    Args:
        parameters: (S, P), changed in place.
        learning_rate: of every row.
        epsilon: below the root of the second moment.
        beta1: of the first moment.
        beta2: of the second moment.
    """

    def __init__(
        self,
        parameters: NDArray[np.float32],
        learning_rate: float,
        epsilon: float = 1e-8,
        beta1: float = 0.9,
        beta2: float = 0.999,
    ) -> None:
        self.parameters, self.learning_rate, self.epsilon = parameters, learning_rate, epsilon
        self.beta1, self.beta2 = beta1, beta2
        self.first = np.zeros_like(parameters)
        self.second = np.zeros_like(parameters)
        self.steps = np.zeros((len(parameters), 1), np.float32)

    def step(self, row: int, gradient: NDArray[np.float32]) -> None:
        """Update a row by its gradient (P,); the others do not change."""
        first, second = self.first[row], self.second[row]
        self.steps[row] += 1
        count = float(self.steps[row, 0])
        first += np.float32(1 - self.beta1) * (gradient - first)
        second += np.float32(1 - self.beta2) * (gradient * gradient - second)
        deviation = np.sqrt(second / np.float32(1 - self.beta2**count))
        deviation += np.float32(self.epsilon)
        rate = np.float32(self.learning_rate / (1 - self.beta1**count))
        self.parameters[row] -= rate * first / deviation

    def reset(self, row: int) -> None:
        """Reset the moments of one row."""
        for array in (self.first, self.second, self.steps):
            array[row] = 0


class Normalizer:
    """Running mean and variance of observations; frozen together with the skills."""

    CLIP = 10.0
    MIN_VARIANCE = 1e-4

    def __init__(self, size: int) -> None:
        self.count = 0.0
        self.mean = np.zeros(size)
        self.square = np.zeros(size)  # sum of squared deviations
        self.fixed: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def update(self, x: NDArray[np.float32], all_reduce: AllReduce = no_reduce) -> None:
        """Update with observations (..., O), and with those of the other processes."""
        off = x.reshape(-1, len(self.mean)) - self.mean
        sums = all_reduce(np.concatenate([[len(off)], off.sum(axis=0), (off * off).sum(axis=0)]))
        n, (first, second) = sums[0], np.split(sums[1:], 2)
        if not n:
            return
        together, delta = self.count + n, first / n
        self.square += second - first * delta + delta**2 * self.count * n / together
        self.mean += delta * n / together
        self.count = together

    @property
    def shift_and_scale(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(O,) each: normalized = clip((x - shift) * scale, -CLIP, CLIP)."""
        if self.fixed is not None:  # read from a bundle
            return self.fixed
        if self.count == 0:
            return np.zeros(len(self.mean), np.float32), np.ones(len(self.mean), np.float32)
        variance = np.maximum(self.square / self.count, self.MIN_VARIANCE)
        return self.mean.astype(np.float32), (1 / np.sqrt(variance)).astype(np.float32)

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Normalized observations, float32."""
        shift, scale = self.shift_and_scale
        out: NDArray[np.float32] = np.clip((x - shift) * scale, -self.CLIP, self.CLIP)
        return out
