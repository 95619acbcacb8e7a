"""Writes perceptual/tests/data_formats with PyTorch: one small network in every checkpoint format, and its loss.

    python make_vgg_checkpoints.py perceptual/tests/data_formats

The network is VGG-11 up to its first convolution, all that `PerceptualLoss` with a tap at layer 0 reads. Each file holds
the same parameters, in the type that `expected.json` names; the losses there are computed by PyTorch itself in double
precision from the parameters rounded to that type. Needs torch 2.x and safetensors.
"""

import collections
import json
import pathlib
import sys

import safetensors.torch
import torch
from make_checkpoints import deflate, save_script, write_tar
from torch import nn

MEAN = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(1, 3, 1, 1)
DEVIATION = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64).view(1, 3, 1, 1)
TYPES = {"f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


class Tap(nn.Module):
    """The part of torchvision's VGG-11 that layer 0 needs, with its names."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1))

    def forward(self, x):
        return self.features(x)


def tap(dtype):
    """Always the same parameters: drawn in double precision, rounded to single, then to `dtype`."""
    torch.manual_seed(5)
    network = Tap().double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    network = network.eval()
    # f64 files keep the doubles; a reader rounds them to single, as the f32 files are.
    return network if dtype == torch.float64 else network.float().to(dtype)


def loss(network, x, target):
    """Both terms: `norm_img`, `use_input_norm`, criterion l1; Gram matrices over channels × height × width."""
    network = network.float().double()

    def features(image):
        return network(((image.double() + 1) / 2 - MEAN) / DEVIATION)

    def gram(f):
        n, c, h, w = f.shape
        f = f.view(n, c, h * w)
        return f @ f.transpose(1, 2) / (c * h * w)

    with torch.no_grad():
        fx, fy = features(x), features(target)
        return [nn.functional.l1_loss(fx, fy).item(), nn.functional.l1_loss(gram(fx), gram(fy)).item()]


def main():
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(6)
    x, target = torch.rand(1, 3, 6, 6) * 2 - 1, torch.rand(1, 3, 6, 6) * 2 - 1
    files = {}

    def save(name, dtype, wrap=lambda state: state, **options):
        torch.save(wrap(tap(TYPES[dtype]).state_dict()), directory / name, **options)
        files[name] = [dtype, "legacy .pth" if options else "zip .pth"]

    def nested(state):
        return {"epoch": 7, "state_dict": state, "best": torch.tensor(0.5)}

    def parallel(state):
        return collections.OrderedDict((f"module.{name}", value) for name, value in state.items())

    old = {"_use_new_zipfile_serialization": False}
    for dtype in TYPES:
        save(f"zip_{dtype}.pth", dtype)
        state = tap(TYPES[dtype]).state_dict()
        plain = directory / f"plain_{dtype}.safetensors"
        safetensors.torch.save_file(state, plain)
        plain.chmod(0o644)
        files[plain.name] = [dtype, "safetensors"]
    save("zip_nested_module.pth", "f32", lambda state: nested(parallel(state)))
    save("zip_module_f16.pth", "f16", parallel)
    deflate(directory / "zip_f32.pth", directory / "zip_deflated.pth")
    files["zip_deflated.pth"] = ["f32", "zip .pth"]
    save("legacy.pth", "f32", **old)
    save("legacy_f16.pth", "f16", **old)
    save("legacy_bf16.pth", "bf16", **old)
    save("legacy_nested_module.pth", "f32", lambda state: nested(parallel(state)), **old)
    for name, dtype in [("tar.pth", "f32"), ("tar_f16.pth", "f16")]:
        # The format's view of a storage, under a name that every VGG may have beside its features.
        write_tar(directory / name, tap(TYPES[dtype]).state_dict(), view="classifier.of_view")
        files[name] = [dtype, "tar .pth"]
    for name, dtype in [("scripted.pt", "f32"), ("scripted_f16.pt", "f16"), ("traced.pt", "f32"),
                        ("traced_bf16.pt", "bf16")]:  # fmt: skip
        network = tap(TYPES[dtype])
        scripted = name.startswith("scripted")
        save_script(torch.jit.script(network) if scripted else torch.jit.trace(network, x.to(TYPES[dtype])),
                    directory / name)  # fmt: skip
        files[name] = [dtype, "TorchScript"]

    expected = {
        "shape": list(x.shape), "x": x.flatten().tolist(), "target": target.flatten().tolist(), "files": files,
        "losses": {dtype: loss(tap(TYPES[dtype]), x, target) for dtype in TYPES},
    }  # fmt: skip
    text = json.dumps(expected, separators=(",", ":"))
    (directory / "expected.json").write_text(text.replace('],"', '],\n"') + "\n")


if __name__ == "__main__":
    main()
