"""Writes perceptual/tests/data_trainers with PyTorch: one small network in the files that training programs leave.

    python make_trainer_checkpoints.py perceptual/tests/data_trainers [perceptual/fuzz/corpus]

With the second directory, it writes seeds of the fuzz targets too.

The network is VGG-11 up to its first convolution, all that `PerceptualLoss` with a tap at layer 0 reads, in half
precision. A file's name says what must become of it: `reads_…` gives the same loss as `reads_plain`; `says_…` is an error
that names the prefix under which the network lies, and gives the same loss with that prefix; `refused_…` is an error.
Needs torch 2.x and numpy.
"""

import argparse
import collections
import pathlib
import sys
import types
import zipfile

import numpy
import torch

FOREIGN = "some_trainer.logging"


def foreign(name):
    """A class of a program that the reader does not have."""
    module = sys.modules.setdefault(FOREIGN, types.ModuleType(FOREIGN))
    sys.modules.setdefault(FOREIGN.split(".")[0], types.ModuleType(FOREIGN.split(".")[0]))
    made = type(name, (), {"__module__": FOREIGN})
    setattr(module, name, made)
    return made


def main():
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(7)
    weight, bias = torch.randn(64, 3, 3, 3).half() * 0.2, torch.randn(64).half() * 0.2
    network = {"features.0.weight": weight, "features.0.bias": bias}

    def save(name, value, **options):
        torch.save(value, directory / f"{name}.pth", **options)

    def renamed(change):
        return {change(name): value for name, value in network.items()}

    save("reads_plain", network)
    # Wrappers of a part, of a compiled part, of both, and of a sharded network.
    save("reads_module_inside", renamed(lambda name: name.replace("features.", "features.module.")))
    save("reads_compiled_inside", renamed(lambda name: "module." + name.replace(".0.", "._orig_mod.0.")))
    save("reads_sharded", renamed(lambda name: "_fsdp_wrapped_module." + name))
    # Counters beside the modules.
    save("reads_averaged", {"n_averaged": torch.tensor(3), **renamed(lambda name: "module." + name)})
    save("reads_updates", {"num_updates": torch.tensor(3, dtype=torch.int32), "steps": torch.tensor(9), **network})

    # Objects of other programs beside the parameters.
    history = foreign("History")()
    history.values, history.arrays = [0.5, 0.25], {"loss": numpy.arange(3.0)}
    keyed = foreign("Keyed")
    keyed.__reduce__ = lambda self: (keyed, (1,), {"state": 2}, iter([4, 5]), iter([("a", 1)]))
    keyed.append = lambda self, item: None
    keyed.__init__ = lambda self, *arguments: None
    named = foreign("Named")
    named.__new__ = lambda cls, *_, **__: object.__new__(cls)
    named.__getnewargs_ex__ = lambda self: ((), {"size": 3})
    cycle = ([],)
    cycle[0].append(cycle)
    training = {
        "state_dict": network,
        "history": history,
        "keyed": keyed(),
        "milestones": collections.Counter([3, 5]),
        "state": collections.defaultdict(dict, {0: {"step": 1}}),
        "best": numpy.float64(31.25),
        "curve": numpy.arange(6.0).reshape(2, 3),
        "random": numpy.random.RandomState(1).get_state(),
        "seen": {1, 2},
        "frozen": frozenset({3}),
        "arguments": argparse.Namespace(lr=1e-4, folder=pathlib.PurePosixPath("runs")),
        "bytes": b"\xff\x00",
        "large": 1 << 3000,
        "complex": 1 + 2j,
        "range": range(3),
        "function": len,
        "cycle": cycle,
        "device": torch.device("cpu"),
        "dtype": torch.float8_e4m3fn,
    }
    save("reads_training", training)
    # The opcode that passes arguments by name is one of protocol 4.
    save("reads_training_protocol4", {**training, "named": named()}, pickle_protocol=4)
    save("reads_training_legacy", training, _use_new_zipfile_serialization=False)

    # Tensors with attributes, of a subclass, and of types that networks do not have.
    tagged = weight.clone()
    tagged.tag = "x"
    save("reads_attribute", {**network, "features.0.weight": tagged})
    subclass = type("Image", (torch.Tensor,), {"__module__": FOREIGN})
    setattr(sys.modules[FOREIGN], "Image", subclass)
    save("reads_subclass", {**network, "features.0.weight": weight.as_subclass(subclass)})
    parameter = torch.nn.Parameter(bias)
    parameter.tag = "x"
    save("reads_parameter_attribute", {**network, "features.0.bias": parameter})
    save("reads_factory", collections.defaultdict(None, network))
    unread = {"scale": weight[0, 0].to(torch.float8_e4m3fn), "phase": torch.zeros(3, dtype=torch.complex64)}
    save("reads_beside_float8", {"state_dict": network, **unread})
    save("reads_beside_complex_legacy", {"state_dict": network, "phase": torch.zeros(3, dtype=torch.complex64)},
         _use_new_zipfile_serialization=False)  # fmt: skip

    # Under a key or a prefix that no list can know.
    other = {"w": torch.zeros(1)}
    save("says_generator", {"generator": network, "epoch": 1})
    save("says_g_ema", {"g_ema": network, "d": other})
    save("says_model", {"state_dict": renamed(lambda name: "model." + name)})
    save("says_", renamed(lambda name: name.replace("features.", "")))
    save("says_net.backbone", {"state_dict": {**renamed(lambda name: "net.backbone." + name), "net.head.w": torch.zeros(1)}})
    save("says_vgg.module_legacy", {"state_dict": other, "vgg": renamed(lambda name: "module." + name)},
         _use_new_zipfile_serialization=False)  # fmt: skip

    # In a tensor's place, what is not read is an error.
    save("refused_object", {**network, "features.0.weight": history})
    save("refused_float8", {**network, "features.0.weight": weight.to(torch.float8_e5m2)})
    save("refused_complex", {**network, "features.0.weight": torch.zeros(2, dtype=torch.complex64)})
    save("refused_array", {**network, "features.0.weight": weight[:2].numpy()})
    save("refused_history", history)

    if len(sys.argv) > 2:
        corpus = pathlib.Path(sys.argv[2])
        for name in ["reads_training", "reads_training_protocol4", "reads_subclass", "reads_beside_float8"]:
            pickled = zipfile.ZipFile(directory / f"{name}.pth").read(f"{name}/data.pkl")
            (corpus / "zip_pth" / f"{name.removeprefix('reads_')}.pkl").write_bytes(pickled)
        small = {**training, "state_dict": {"features.0.bias": bias[:2].clone()}, "curve": None, "random": None}
        torch.save(small, corpus / "legacy_pth" / "training", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
