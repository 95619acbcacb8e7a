"""Writes the checkpoints of perceptual/tests/data with PyTorch, and what they hold as expected.json.

    python make_checkpoints.py perceptual/tests/data [perceptual/fuzz/corpus]

With the second directory, it writes the seeds of the fuzz targets too. Needs torch 2.x and safetensors. Each file is a few KB; the expected values are those that torch itself reads back,
converted to float32. PyTorch no longer writes the tar format: that file is laid out here as torch's own reader reads
it, and read back by it.
"""

import collections
import io
import json
import pathlib
import pickle
import struct
import sys
import tarfile
import zipfile

import safetensors.torch
import torch
from torch import nn

NAMES = {
    torch.float64: "f64", torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16",
    torch.int64: "i64", torch.int32: "i32", torch.int16: "i16", torch.int8: "i8",
    torch.uint64: "u64", torch.uint32: "u32", torch.uint16: "u16", torch.uint8: "u8", torch.bool: "bool",
}  # fmt: skip


class Block(nn.Module):
    """A convolution with batch norm, a transposed parameter, a temperature of rank 0 and a whole number."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 2)
        self.norm = nn.BatchNorm2d(3)
        self.projection = nn.Parameter(torch.randn(4, 3).t())
        self.logit_scale = nn.Parameter(torch.tensor(2.6593))
        self.register_buffer("input_resolution", torch.tensor(224))

    def forward(self, x):
        return (self.norm(self.conv(x)).mean((2, 3)) @ self.projection) * self.logit_scale.exp()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Block()
        self.layers = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2, bias=False))

    def forward(self, x):
        return self.layers(self.first(x))


def net():
    torch.manual_seed(1)
    return Net().eval()


def dtypes(which):
    torch.manual_seed(2)
    values = torch.randn(2, 3, dtype=torch.float64) * 3
    return {f"of.{NAMES[dtype]}": (values.abs() * 20).to(dtype) for dtype in which}


def views():
    """Tensors that share storages, with offsets and strides of every kind."""
    torch.manual_seed(3)
    base = torch.randn(4, 6)
    half = torch.randn(3, 4).half()
    return {
        "whole": base,
        "transposed": base.t(),
        "columns": base[:, 1:5:2],
        "row": base[2],
        "inner": base[1:3, 2:4].t(),
        "permuted": torch.randn(2, 3, 4).permute(2, 0, 1),
        "channels_last": torch.randn(1, 3, 2, 2).to(memory_format=torch.channels_last),
        "expanded": torch.randn(1, 3).expand(4, 3),
        "half_rows": half[::2],
        "half_row": half[1],
        "none": torch.zeros(0, 3),
        "scalar": torch.tensor(1.5),
        "last": base[3, 5],
    }


def describe(tensors):
    return {
        name: {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "values": tensor.detach().to(torch.float32).flatten().tolist(),
        }
        for name, tensor in tensors.items()
    }


def write_tar(path, tensors, view="of_view"):
    """The layout that torch.serialization's `legacy_load` reads."""

    def dump(file, value):
        pickle.dump(value, file, protocol=2)

    storages, views = {}, []
    for tensor in tensors.values():
        storage = tensor.storage()
        storages.setdefault(storage._cdata, (tensor.untyped_storage().data_ptr(), storage, tensor.dtype))
    # Storages over the same memory are written once; the others become views of the first.
    roots, keys = {}, {}
    for number, (pointer, storage, dtype) in enumerate(storages.values(), 1):
        keys[pointer] = roots.setdefault(pointer, (1000 + number, storage, dtype))[0]
    stored, table = io.BytesIO(), io.BytesIO()
    dump(stored, len(roots))
    for key, storage, _ in roots.values():
        dump(stored, (key, "cpu", getattr(torch, type_name(storage))))
        stored.write(struct.pack("<q", len(storage)))
        stored.write(bytes(storage._untyped_storage))
    # A view of the first storage, from its second element on, that one tensor more uses.
    first, storage, _ = next(iter(roots.values()))
    views.append((2000, first, 1, len(storage) - 1))
    dump(stored, views)

    entries = [(name, keys[t.untyped_storage().data_ptr()], t.shape, t.stride(), t.storage_offset(), t.dtype)
               for name, t in tensors.items()]  # fmt: skip
    entries.append((view, 2000, (3,), (2,), 1, next(iter(tensors.values())).dtype))
    dump(table, len(entries))
    for number, (_, storage, shape, strides, offset, dtype) in enumerate(entries):
        dump(table, (3000 + number, storage, torch.FloatTensor))
        table.write(struct.pack("<ii", len(shape), 0))
        table.write(struct.pack(f"<{len(shape)}q{len(strides)}q", *shape, *strides))
        table.write(struct.pack("<q", offset))

    class Pickler(pickle._Pickler):
        def persistent_id(self, value):
            return value.key if isinstance(value, Reference) else None

    class Reference:
        def __init__(self, key):
            self.key = key

    named, system = io.BytesIO(), io.BytesIO()
    references = ((entry[0], Reference(str(3000 + number))) for number, entry in enumerate(entries))
    Pickler(named, protocol=2).dump(collections.OrderedDict(references))
    dump(system, {"protocol_version": 1000, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}})
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as archive:
        for name, data in [("sys_info", system), ("pickle", named), ("tensors", table), ("storages", stored)]:
            member = tarfile.TarInfo(name)
            member.size = len(data.getvalue())
            archive.addfile(member, io.BytesIO(data.getvalue()))
    # Tar pads to 10 KB; nothing reads what follows the two empty blocks.
    data = path.read_bytes().rstrip(b"\0")
    path.write_bytes(data + b"\0" * (1024 + -len(data) % 512))


def type_name(storage):
    return type(storage).__name__ if type(storage).__name__ != "TypedStorage" else storage.pickle_storage_type()


def save_script(module, path):
    """`torch.jit.save`, then PyTorch's own archive classes once more: the debug records repeat the machine's paths."""
    whole = io.BytesIO()
    torch.jit.save(module, whole)
    reader = torch._C.PyTorchFileReader(io.BytesIO(whole.getvalue()))
    writer = torch._C.PyTorchFileWriter(str(path))
    for name in reader.get_all_records():
        if not name.endswith(".debug_pkl") and name not in ("version", "byteorder", ".data/serialization_id"):
            record = reader.get_record(name)
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()
    del writer


def deflate(source, path):
    with zipfile.ZipFile(source) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in whole.infolist():
            member = zipfile.ZipInfo(entry.filename)
            packed.writestr(member, whole.read(entry), zipfile.ZIP_DEFLATED)


def write_corpus(directory, data):
    """A small file of each format, and the pickles alone of zip files: they are what mutation should meet."""

    def folder(name):
        (directory / name).mkdir(parents=True, exist_ok=True)
        return directory / name

    def write_pickle(source, path):
        with zipfile.ZipFile(source) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            path.write_bytes(archive.read(name))

    small = collections.OrderedDict(
        a=torch.ones(2, 3), b=torch.arange(6.0).view(2, 3).t(), c=torch.tensor(1, dtype=torch.float16)
    )
    plain = folder("safetensors") / "small"
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in small.items()}, plain)
    plain.chmod(0o644)
    zips = folder("zip_pth")
    torch.save(small, zips / "small.zip")
    deflate(zips / "small.zip", zips / "deflated.zip")
    for name, value, options in [
        ("small", small, {}),
        ("protocol4", small, {"pickle_protocol": 4}),
        ("untyped", {"x": torch.ones(2, dtype=torch.uint16)}, {}),
        ("wrapped", {"state_dict": {"module.p": nn.Parameter(torch.ones(1))}, "size": torch.Size([1])}, {}),
    ]:
        whole = io.BytesIO()
        torch.save(value, whole, **options)
        write_pickle(whole, zips / f"{name}.pkl")
    write_pickle(data / "zip_views.pth", zips / "views.pkl")
    legacy = {"state_dict": small, "epoch": 1}
    torch.save(legacy, folder("legacy_pth") / "small", _use_new_zipfile_serialization=False)
    write_tar(folder("tar_pth") / "small", {"a": torch.ones(2, 3)})
    scripts = folder("torchscript")
    save_script(torch.jit.trace(nn.Linear(1, 1), torch.ones(1)), scripts / "small.zip")
    write_pickle(scripts / "small.zip", scripts / "small.pkl")
    write_pickle(data / "traced.pt", scripts / "traced.pkl")
    write_pickle(data / "scripted.pt", scripts / "scripted.pkl")


def main():
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    expected = {}

    def add(name, kind, tensors):
        expected[name] = {"format": kind, "tensors": describe(tensors)}

    def save(name, kind, value, tensors=None, **options):
        torch.save(value, directory / name, **options)
        # PyTorch's own restricted machine knows protocol 2 only.
        loaded = torch.load(directory / name, weights_only="pickle_protocol" not in options)
        add(name, kind, loaded if tensors is None else tensors)

    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(2, 2, 5, 5)).sum().backward()
    optimizer.step()
    parameters = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parallel = collections.OrderedDict((f"module.{name}", tensor) for name, tensor in parameters.items())
    training = {"epoch": 3, "arch": "net", "state_dict": parallel, "prec1": torch.tensor(0.5), "size": torch.Size([1, 2]),
                "device": torch.device("cpu"), "optimizer": optimizer.state_dict()}  # fmt: skip
    common = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
              torch.int8, torch.uint8, torch.bool]  # fmt: skip
    wide = [torch.uint16, torch.uint32, torch.uint64]

    save("zip.pth", "zip .pth", model.state_dict())
    save("zip_dtypes.pth", "zip .pth", dtypes(common + wide))
    save("zip_views.pth", "zip .pth", views())
    save("zip_training.pth", "zip .pth", training, parameters)
    save("zip_ema.pth", "zip .pth", {"params": {"a": torch.zeros(2)}, "params_ema": {"a": torch.ones(2)}},
         {"a": torch.ones(2)})  # fmt: skip
    save("zip_nested.pth", "zip .pth", {"one": {"a": torch.ones(2)}, "two": {"b": {"c": torch.zeros(1)}}, "n": 1},
         {"one.a": torch.ones(2), "two.b.c": torch.zeros(1)})  # fmt: skip
    save("zip_parameters.pth", "zip .pth", dict(model.named_parameters()))
    save("zip_protocol4.pth", "zip .pth", model.state_dict(), pickle_protocol=4)
    deflate(directory / "zip.pth", directory / "zip_deflated.pth")
    add("zip_deflated.pth", "zip .pth", torch.load(directory / "zip_deflated.pth"))
    old = {"_use_new_zipfile_serialization": False}
    save("legacy.pth", "legacy .pth", model.state_dict(), **old)
    save("legacy_dtypes.pth", "legacy .pth", dtypes(common), **old)
    save("legacy_views.pth", "legacy .pth", views(), **old)
    save("legacy_training.pth", "legacy .pth", training, parameters, **old)
    save("legacy_protocol4.pth", "legacy .pth", model.state_dict(), pickle_protocol=4, **old)

    floats = {name: tensor for name, tensor in views().items() if tensor.dtype == torch.float32}
    write_tar(directory / "tar.pth", {**floats, **dtypes([torch.float16, torch.int64])})
    add("tar.pth", "tar .pth", torch.load(directory / "tar.pth", weights_only=False))

    tensors = {name: tensor.contiguous() for name, tensor in {**parameters, **dtypes(common + wide)}.items()}
    plain = directory / "plain.safetensors"
    safetensors.torch.save_file(tensors, plain, {"format": "pt"})
    plain.chmod(0o644)  # the writer gives its files to their owner alone
    add(plain.name, "safetensors", safetensors.torch.load_file(plain))

    image = torch.randn(1, 2, 4, 4)
    save_script(torch.jit.script(net()), directory / "scripted.pt")
    save_script(torch.jit.trace(net(), image), directory / "traced.pt")
    save_script(torch.jit.script(net().half()), directory / "scripted_half.pt")
    save_script(torch.jit.trace(net().to(torch.bfloat16), image.bfloat16()), directory / "traced_bfloat16.pt")
    for name in ["scripted.pt", "traced.pt", "scripted_half.pt", "traced_bfloat16.pt"]:
        add(name, "TorchScript", torch.jit.load(directory / name).state_dict())

    # Files that must be refused: a pickled module, and the two marks of a big-endian machine.
    torch.save(nn.Linear(2, 1), directory / "refused_module.pth")
    byteorder, sys.byteorder = sys.byteorder, "big"
    torch.save({"a": torch.ones(1)}, directory / "refused_big_endian.pth")
    torch.save({"a": torch.ones(1)}, directory / "refused_big_endian_legacy.pth", **old)
    sys.byteorder = byteorder

    if len(sys.argv) > 2:
        write_corpus(pathlib.Path(sys.argv[2]), directory)

    text = json.dumps(expected, separators=(",", ":"))
    (directory / "expected.json").write_text(text.replace('"format"', '\n"format"') + "\n")


if __name__ == "__main__":
    main()
