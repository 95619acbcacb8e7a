"""Writes the reference values of LPIPS and DISTS, computed by PyPI's own packages, as safetensors.

    python make_lpips.py perceptual/tests/data_lpips

Needs torch, torchvision, safetensors, and `pip install --no-deps lpips==0.1.4 dists-pytorch==0.1`. Backbones are filled
by the seeded scheme of xtask/reference/README.md (seed 7); the linear layers and DISTS's weights are the packages' real
ones, and are stored beside the values under the names that the packages give them. Everything is computed in float64 and
stored in float32. A value with several elements is differentiated through sum(value * cotangent).
"""

import pathlib
import sys
import types
from unittest import mock

import safetensors.torch
import torch
import torchvision

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "reference"))
from generate import seeded_parameters, tensor_of, uniforms  # noqa: E402

SEED = 7
SIZE = (1, 3, 33, 35)

# name: arguments of lpips.LPIPS, arguments of the call
CASES = {
    "alex": (dict(net="alex"), {}),
    "alex_v0.0": (dict(net="alex", version="0.0"), {}),
    "vgg": (dict(net="vgg"), {}),
    "squeeze": (dict(net="squeeze"), {}),
    "squeeze_spatial": (dict(net="squeeze", spatial=True), dict(normalize=True)),
    "squeeze_baseline": (dict(net="squeeze", lpips=False), {}),
}


def import_lpips():
    """The package's training code wants modules that its metric does not."""
    stand_ins = {name: types.ModuleType(name) for name in ("scipy", "scipy.ndimage", "tqdm")}
    stand_ins["scipy.ndimage"].zoom = stand_ins["tqdm"].tqdm = None
    with mock.patch.dict(sys.modules, stand_ins):
        import lpips
    return lpips


def seeded(build):
    """A torchvision network with seeded parameters, whatever `pretrained` says."""

    def network(pretrained=True):
        network = build()
        network.load_state_dict(seeded_parameters(network.state_dict(), SEED))
        return network

    return network


def image(name, low, high):
    numbers = uniforms(name, SEED, torch.Size(SIZE).numel())
    return tensor_of(low + (high - low) * numbers, SIZE)


def write(path, loss, weights, low, call):
    inputs = {name: image(name, low, 1.0).requires_grad_() for name in ("prediction", "target")}
    value = loss(*inputs.values(), **call)
    cotangent = tensor_of(uniforms("cotangent", SEED, value.numel()), tuple(value.shape))
    gradients = torch.autograd.grad((value * cotangent).sum(), list(inputs.values()))
    tensors = {"value": value, "cotangent": cotangent, **weights}
    for (name, tensor), gradient in zip(inputs.items(), gradients):
        tensors[f"input.{name}"], tensors[f"grad.{name}"] = tensor, gradient
    tensors = {name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(tensors, path)
    print(f"{path}: {value.flatten()[:2].tolist()}")


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    models = torchvision.models
    lpips = import_lpips()
    with (
        mock.patch.object(models, "alexnet", seeded(models.alexnet)),
        mock.patch.object(models, "vgg16", seeded(models.vgg16)),
        mock.patch.object(models, "squeezenet1_1", seeded(models.squeezenet1_1)),
    ):
        for name, (options, call) in CASES.items():
            loss = lpips.LPIPS(verbose=False, **options).double()
            weights = {key: value for key, value in loss.state_dict().items() if key.startswith("lin") and key[3] != "s"}
            write(folder / f"lpips_{name}.safetensors", loss, weights, 0.0 if call else -1.0, call)

        from DISTS_pytorch import DISTS

        loss = DISTS(load_weights=False).double()
        weights = torch.load(pathlib.Path(sys.modules["DISTS_pytorch"].__file__).with_name("weights.pt"), "cpu")
        loss.alpha.data, loss.beta.data = weights["alpha"].double(), weights["beta"].double()
        weights = {name: tensor.data for name, tensor in weights.items()}
        write(folder / "dists.safetensors", loss, weights, 0.0, {"require_grad": True})


if __name__ == "__main__":
    main()
