"""Stacks, their optimizer and the observation statistics against torch and numpy themselves."""

import numpy as np
import pytest
import torch

from policies.mlsh.networks import Adam, Normalizer, StackedMLP, activate, activation_slope

# Imports triton, where torch brings it, before a test has loaded Mesa: their two LLVMs crash.
torch.optim.Adam([torch.zeros(1, requires_grad=True)])

ROWS, INPUTS, OUTPUTS, EXTRA = 3, 5, 2, 2


MODULES = {"tanh": torch.nn.Tanh, "elu": torch.nn.ELU}


def stack(hidden=(8, 6), gain=1.0, activation="tanh") -> StackedMLP:
    result = StackedMLP(ROWS, (INPUTS, *hidden, OUTPUTS), EXTRA, activation=activation)
    for row in range(ROWS):
        result.initialize(row, np.random.default_rng(row), output_gain=gain, log_std=-0.5)
    return result


def inputs(n=17):
    return np.random.default_rng(9).standard_normal((ROWS, n, INPUTS)).astype(np.float32)


def as_torch(nets: StackedMLP, row: int) -> torch.nn.Sequential:
    modules = []
    for weight, bias in nets.layers(row):
        linear = torch.nn.Linear(*weight.shape)
        linear.weight.data = torch.from_numpy(weight.T.copy())
        linear.bias.data = torch.from_numpy(bias.copy())
        modules += [linear, MODULES[nets.activation]()]
    return torch.nn.Sequential(*modules[:-1])


# Stack ------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", MODULES)
@pytest.mark.parametrize("hidden", [(), (8,), (8, 6)])
def test_rows_and_stack_agree(hidden, activation):
    nets, x = stack(hidden, activation=activation), inputs()
    for row in range(ROWS):
        out = nets.forward_row(row, x[row])
        assert np.abs(nets.forward_numpy(x)[row] - out).max() <= 1e-6
        assert np.array_equal(nets.activations(row, x[row])[-1], out)


@pytest.mark.parametrize("activation", MODULES)
def test_stack_is_what_torch_calls_an_mlp(activation):
    nets, x = stack(activation=activation), inputs()
    for row in range(ROWS):
        plain = as_torch(nets, row)
        expected = plain(torch.from_numpy(x[row])).detach().numpy()
        assert np.abs(nets.forward_row(row, x[row]) - expected).max() <= 1e-6


def test_layers_are_views_of_the_row():
    nets = stack()
    weight, bias = nets.layers(2)[-1]
    weight[:], bias[:], nets.log_std(2)[:] = 3, 4, 5
    # The last layer and the free parameters are the end of the row.
    end = [3.0] * (6 * OUTPUTS) + [4.0] * OUTPUTS + [5.0] * EXTRA
    assert nets.numpy[2, -len(end) :].tolist() == end


def test_activation_is_elu_with_alpha_one():
    # elu(2) = 2, elu(0) = 0, elu(-1) = exp(-1) - 1 = -0.63212; slopes 1, 1, exp(-1) = 0.36788.
    x = np.array([2, 0, -1, -200, 200], np.float32)
    y = activate("elu", x.copy())
    assert y == pytest.approx([2, 0, -0.63212, -1, 200], abs=1e-5)
    assert activation_slope("elu", y) == pytest.approx([1, 1, 0.36788, 0, 1], abs=1e-5)


def test_a_stack_is_of_tanh_unless_it_says_otherwise():
    nets, x = stack(), inputs()
    (first, b0), (second, b1), (last, b2) = nets.layers(1)
    plain = np.tanh(np.tanh(x[1] @ first + b0) @ second + b1) @ last + b2
    assert np.array_equal(nets.forward_row(1, x[1]), plain)  # to the bit


@pytest.mark.parametrize("activation", MODULES)
@pytest.mark.parametrize("hidden", [(), (8,), (8, 6)])
def test_backward_is_torchs(hidden, activation):
    nets, x = stack(hidden, activation=activation), inputs()
    slope = np.random.default_rng(2).standard_normal((len(x[0]), OUTPUTS)).astype(np.float32)
    for row in range(ROWS):
        plain = as_torch(nets, row)
        (plain(torch.from_numpy(x[row])) * torch.from_numpy(slope)).sum().backward()
        parts = [p.grad.numpy().T.ravel() for p in plain.parameters()]
        expected = np.concatenate([*parts, [7.0, 8.0]])
        ours = nets.backward(row, nets.activations(row, x[row]), slope, np.array([7.0, 8.0]))
        assert ours == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_initial_weights_are_orthogonal_with_the_gain_of_their_layer():
    nets = stack((8, 6), gain=0.01)
    for row in range(ROWS):
        (first, b0), (second, b1), (last, b2) = nets.layers(row)
        # As many orthonormal rows or columns as fit, times the gain: W W^T = gain^2 I.
        assert first @ first.T == pytest.approx(2 * np.eye(INPUTS), abs=1e-5)
        assert second.T @ second == pytest.approx(2 * np.eye(6), abs=1e-5)
        assert last.T @ last == pytest.approx(1e-4 * np.eye(OUTPUTS), abs=1e-8)
        assert not any(b.any() for b in (b0, b1, b2))
        assert nets.log_std(row).tolist() == [-0.5, -0.5]


# Adam -------------------------------------------------------------------------------------


def test_adam_is_torch_adam_on_each_row_by_itself():
    rng = np.random.default_rng(0)
    start = rng.standard_normal((ROWS, 4)).astype(np.float32)
    ours = start.copy()
    adam = Adam(ours, learning_rate=0.03, epsilon=1e-3)
    theirs = [torch.from_numpy(row.copy()).requires_grad_() for row in start]

    def optimizer(row):
        return torch.optim.Adam([theirs[row]], lr=0.03, eps=1e-3)

    single = [optimizer(row) for row in range(ROWS)]
    for step in range(12):
        if step == 5:  # row 1 forgets its moments and its count, and nobody else does
            adam.reset(1)
            single[1] = optimizer(1)
        gradient = rng.standard_normal((ROWS, 4)).astype(np.float32)
        active = [step % 2 == 0, True, step != 7]
        before = ours.copy()
        for row in range(ROWS):
            if active[row]:
                adam.step(row, gradient[row])
                theirs[row].grad = torch.from_numpy(gradient[row].copy())
                single[row].step()
            else:
                assert np.array_equal(ours[row], before[row])
            assert ours[row] == pytest.approx(theirs[row].detach().numpy(), abs=1e-5)
    assert adam.steps[:, 0].tolist() == [6, 7, 11]


# Normalizer -------------------------------------------------------------------------------


def test_normalizer_is_numpys_mean_and_variance():
    rng = np.random.default_rng(4)
    parts = [rng.normal(3, 2, (n, 2, 4)).astype(np.float32) for n in (1, 50, 7)]
    normalizer = Normalizer(4)
    for part in parts:
        normalizer.update(part)
    everything = np.concatenate(parts).reshape(-1, 4).astype(np.float64)
    assert normalizer.mean == pytest.approx(everything.mean(axis=0))
    assert normalizer.square / normalizer.count == pytest.approx(everything.var(axis=0))
    x = parts[1]
    expected = (x - everything.mean(axis=0)) / everything.std(axis=0)
    assert normalizer(x) == pytest.approx(expected, abs=1e-5)
    assert normalizer(x).dtype == np.float32


def test_normalizer_passes_everything_before_the_first_update():
    x = inputs()
    assert np.array_equal(Normalizer(INPUTS)(x), x)


def test_normalizer_bounds_outliers_and_constants():
    normalizer = Normalizer(2)
    normalizer.update(np.array([[0, 5], [2, 5]], np.float32))  # deviations 1 and 0
    # 1e6 is bounded; the constant's variance counts as 1e-4, so 5.01 is (.01) / sqrt(1e-4) = 1.
    assert normalizer(np.array([[1e6, 5.01]], np.float32))[0] == pytest.approx([10, 1], abs=1e-3)


def test_fixed_statistics_win():
    normalizer = Normalizer(1)
    normalizer.update(np.array([[0], [2]], np.float32))
    normalizer.fixed = np.array([10], np.float32), np.array([2], np.float32)
    assert normalizer(np.array([[11]], np.float32)).tolist() == [[2]]
