#!/usr/bin/env python3
"""Recomputes the reference corpus of this folder with MMagic's own losses.

The corpus is 223 safetensors files in five families (README.md describes the format). This script
reads the *inputs* of every case (``input.*``, ``cotangent*``, ``net.*``) and its configuration,
runs the class of PyPI's ``mmagic`` that the case names, in float64 on one CPU thread, and writes
the same file again with every ``value*`` and ``grad*`` recomputed. So anyone can see where the
numbers come from; or draw other inputs and get a second corpus in the same format.

Set up once (standard library only; it says what it downloads, and how much, before it does)::

    python3 xtask/reference/generate.py --setup target/reference-venv

Recompute all cases, and compare with the files in this folder::

    target/reference-venv/bin/python xtask/reference/generate.py \\
        --out target/reference --check xtask/reference

Only compare, one family or one kind of case (nothing is written)::

    target/reference-venv/bin/python xtask/reference/generate.py \\
        --check xtask/reference --filter 'perceptual/vgg*'

A second corpus with inputs drawn from a seed: odd sizes, other channel counts, batches of one::

    target/reference-venv/bin/python xtask/reference/generate.py \\
        --out target/reference-fresh --fresh-inputs --seed 1

What stands in for what:

* Only MMagic's loss modules and the two networks they use (LightCNN, ArcFace) are imported. The
  packages above them are entered without running their ``__init__`` files, which would import all
  of MMagic and with it mmcv, diffusers and more. MMagic's ``MODELS`` registry, ``try_import`` and
  the few names the losses take from ``mmengine`` are replaced by the small equivalents in
  ``import_mmagic``. Each MMagic file that was run is compared with the wheel's own checksum.
* MMagic downloads its backbones. Here a download gives parameters made from the case's seed.
* ``clip.load`` is replaced by OpenAI's network class with seeded parameters; its LayerNorm, which
  computes in float32 whatever it is given, computes in float64.
* ``torch.rand`` and ``torch.randn_like`` give the case's ``alpha`` and ``noise`` while a penalty
  that draws them runs.

One thing to know about the numbers: the four ``gradient_penalty_HWC_*`` cases of the corpus hold
what MMagic computes when the component is called directly, which is the ``pixel`` form (see
``penalties``). In a fresh corpus these cases have ``data_info``, and hold the ``HWC`` form.
"""

import argparse
import base64
import contextlib
import copy
import fnmatch
import hashlib
import importlib
import importlib.metadata
import json
import math
import re
import subprocess
import sys
import types
import venv
import warnings
from pathlib import Path
from unittest import mock

HERE = Path(__file__).resolve().parent

# Largest error, relative to the largest element of the tensor, that --check accepts.
TOLERANCES = {'float64': 1e-12, 'float32': 1e-5}

# Results that are reported but not differentiated.
NOT_DIFFERENTIATED = ('mean_path_length', 'path_lengths')

try:
    import numpy as np
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file
    from torch import nn
except (ImportError, OSError, ValueError):  # --setup makes an environment where this succeeds
    torch = None


# ----------------------------------------------------------------------------------------- set-up


def read_requirements():
    """The entries of requirements.txt as (requirement, megabytes), in two lists: what is always
    installed, and NVIDIA's libraries."""
    always, nvidia = [], []
    for line in (HERE / 'requirements.txt').read_text(encoding='utf-8').splitlines():
        requirement, _, comment = line.partition('#')
        if requirement.strip():
            entry = (requirement.strip(), float(comment.split()[0]))
            (nvidia if requirement.startswith('nvidia-') else always).append(entry)
    return always, nvidia


def announce(title, entries):
    """Prints what is about to be downloaded, and how large it is."""
    total = sum(megabytes for _, megabytes in entries)
    print(f'{title}: {len(entries)} packages, about {total:.0f} MB to download')
    for requirement, megabytes in entries:
        print(f'  {requirement.split(";")[0].strip():34} {megabytes:7.1f} MB')
    sys.stdout.flush()


def set_up(directory):
    """Makes the virtual environment `directory`, or completes it, and checks that it works."""
    if sys.version_info < (3, 10):
        sys.exit('torch 2.13.0 needs Python 3.10 or later')
    directory = Path(directory)
    scripts = 'Scripts' if sys.platform == 'win32' else 'bin'
    python = directory / scripts / ('python.exe' if sys.platform == 'win32' else 'python')

    def succeeds(code):
        return python.exists() and subprocess.run(
            [python, '-c', code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            check=False).returncode == 0

    def install(entries):
        subprocess.run([python, '-m', 'pip', 'install', '--no-deps', '--disable-pip-version-check',
                        '--quiet', *(requirement for requirement, _ in entries)], check=True)

    always, nvidia = read_requirements()
    pins = [requirement.split('==') for requirement, _ in always if '==' in requirement]
    complete = (f'import torch, torchvision, safetensors.torch, numpy; '
                f'from importlib.metadata import version; '
                f'assert all(version(n) == v for n, v in {pins!r})')
    if succeeds(complete):
        print(f'{directory} is complete, nothing to download')
        return

    announce(f'1. into {directory}', always)
    if sys.platform == 'linux':
        size = sum(megabytes for _, megabytes in nvidia)
        print(f"2. unless torch then imports without them: NVIDIA's libraries, about {size:.0f} MB "
              'more.\nOn disk the environment takes about 4 GB.', flush=True)
    if not python.exists():
        venv.EnvBuilder(with_pip=True).create(directory)
    install(always)
    if sys.platform == 'linux' and not succeeds('import torch'):
        announce('2. the libraries torch is linked against', nvidia)
        install(nvidia)
    if not succeeds(complete):
        subprocess.run([python, '-c', complete], check=False)  # shows the error
        sys.exit(f'{directory} was set up, but its packages do not import')
    print(f'{directory} is ready')


# ------------------------------------------------------------------------------- MMagic, unmodified


class Registry:
    """MMagic's MODELS, as far as the losses use it: classes by name, built from a dictionary."""

    def __init__(self):
        self.classes = {}

    def register_module(self, name=None):
        """The decorator that registers a class, under its own name unless another is given."""

        def register(cls):
            self.classes[name or cls.__name__] = cls
            return cls

        return register

    def build(self, config):
        """An object of the class config['type'], made with the other entries."""
        arguments = dict(config)
        return self.classes[arguments.pop('type')](**arguments)


def stand_in(name, path=None, **attributes):
    """Puts a module of our own in the place of `name`. With `path` it is a package whose
    submodules are the real ones in that folder."""
    module = types.ModuleType(name)
    if path is not None:
        module.__path__ = [str(path)]
    for key, value in attributes.items():
        setattr(module, key, value)
    sys.modules[name] = module
    return module


def try_import(name):
    """MMagic's function of this name."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def import_mmagic():
    """Imports MMagic's losses from the installed wheel; returns the registry that builds them and
    the module `mmagic.models.losses`."""
    wheel = importlib.metadata.distribution('mmagic')
    root = Path(wheel.locate_file('mmagic'))
    registry = Registry()

    # From mmengine: logging, which is silenced; BaseModule, which adds initialisation to
    # nn.Module; load_checkpoint, which `seeded_backbones` replaces.
    stand_in('mmengine', print_log=lambda *args, **kwargs: None,
             MMLogger=types.SimpleNamespace(get_current_instance=lambda: None))
    stand_in('mmengine.dist', is_distributed=lambda: False)
    stand_in('mmengine.model', BaseModule=nn.Module)
    stand_in('mmengine.runner', load_checkpoint=None)

    stand_in('mmagic', root)
    stand_in('mmagic.registry', MODELS=registry)
    stand_in('mmagic.utils', try_import=try_import)
    stand_in('mmagic.models', root / 'models')
    stand_in('mmagic.models.editors', root / 'models' / 'editors')
    dic = stand_in('mmagic.models.editors.dic', root / 'models' / 'editors' / 'dic')
    dic.LightCNN = importlib.import_module('mmagic.models.editors.dic.light_cnn').LightCNN
    importlib.import_module('mmagic.models.editors.arcface')

    # CLIP: the network's module alone; the package's own __init__ wants a tokeniser's packages.
    clip_folder = Path(importlib.metadata.distribution('clip-anytorch').locate_file('clip'))
    stand_in('clip', clip_folder, load=None)
    importlib.import_module('clip.model').LayerNorm.forward = nn.LayerNorm.forward

    losses = importlib.import_module('mmagic.models.losses')
    check_unmodified(wheel)
    return registry, losses


def check_unmodified(wheel):
    """Stops if a file of MMagic that was imported is not the wheel's."""
    checksums = {str(file.locate()): file.hash for file in wheel.files}
    for name, module in list(sys.modules.items()):
        source = getattr(module, '__file__', None)
        if name.startswith('mmagic.') and source:
            recorded = checksums[source]
            digest = hashlib.new(recorded.mode, Path(source).read_bytes()).digest()
            if base64.urlsafe_b64encode(digest).rstrip(b'=').decode() != recorded.value:
                sys.exit(f'{source} is not the file of the mmagic wheel')


# ---------------------------------------------------------------------------- seeded random numbers


def uniforms(key, seed, count):
    """`count` numbers in [0, 1) with 24 bits from SplitMix64 started at fnv1a64(key) XOR seed."""
    mask = (1 << 64) - 1
    state = 0xCBF29CE484222325
    for byte in key.encode():
        state = ((state ^ byte) * 0x100000001B3) & mask
    state ^= seed & mask
    drawn = np.empty(count)
    for start in range(0, count, 1 << 20):  # in pieces, to keep the temporaries small
        stop = min(start + (1 << 20), count)
        z = np.arange(start + 1, stop + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(state)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
        drawn[start:stop] = (z >> np.uint64(40)) * 2.0**-24
    return drawn


def normals(key, seed, count):
    """`count` standard normal numbers (Box-Muller)."""
    u = uniforms(key, seed, 2 * count)
    return np.sqrt(-2 * np.log(1 - u[:count])) * np.cos(2 * np.pi * u[count:])


def tensor_of(numbers, shape):
    """A float64 tensor of `numbers` rounded to float32."""
    return torch.from_numpy(np.asarray(numbers, np.float32)).double().reshape(shape)


def seeded_parameters(state, seed):
    """The state dictionary `state` with every tensor filled as README.md says. The classifier of
    torchvision's networks is left at zero: MMagic drops it, and it is most of the download."""
    filled = {}
    for key, value in state.items():
        shape = tuple(value.shape)
        if key.endswith('num_batches_tracked'):
            filled[key] = value
        elif re.fullmatch(r'classifier\.\d+\.(weight|bias)', key):
            filled[key] = torch.zeros(()).expand(shape)
        elif not shape:
            filled[key] = tensor_of([math.log(1 / 0.07)], shape)
        else:
            u = uniforms(key, seed, math.prod(shape))
            if len(shape) >= 2:
                u = (2 * u - 1) * math.sqrt(6 / math.prod(shape[1:]))
            elif key.endswith('running_var'):
                u = 0.5 + u
            elif key.endswith('weight'):
                u = 0.5 + 0.5 * u
            else:
                u = 0.1 * (2 * u - 1)
            filled[key] = tensor_of(u, shape)
    return filled


@contextlib.contextmanager
def seeded_backbones(scheme):
    """While this holds, every download of a backbone gives seeded parameters instead."""
    import torchvision
    from clip.model import CLIP
    from mmagic.models.editors.arcface.model_irse import Backbone
    if scheme['scheme'] != 'splitmix64':
        raise ValueError(f'unknown scheme {scheme["scheme"]}')
    seed = scheme['seed']

    def download(url, *args, **kwargs):
        """For torch.hub.load_state_dict_from_url: what the file name in the URL promises."""
        file = url.rsplit('/', 1)[-1]
        if file.startswith('vgg'):
            network = getattr(torchvision.models, file.split('-')[0])()
        elif file == 'Arcface-IR-SE50':
            network = Backbone(input_size=112, num_layers=50, drop_ratio=0.6, mode='ir_se')
        else:
            raise ValueError(f'no stand-in for {url}')
        return seeded_parameters(network.state_dict(), seed)

    def load_checkpoint(model, filename, **kwargs):
        """For mmengine's function, which loads the LightCNN."""
        model.load_state_dict(seeded_parameters(model.state_dict(), seed))

    def load_clip(name, device):
        """For clip.load: the network and a preprocessing that MMagic does not use."""
        network = CLIP(**scheme['architecture'])
        network.load_state_dict(seeded_parameters(network.state_dict(), seed))
        return network, None

    with mock.patch('torch.hub.load_state_dict_from_url', download), \
            mock.patch('torchvision.models._api.load_state_dict_from_url', download), \
            mock.patch('mmagic.models.losses.feature_loss.load_checkpoint', load_checkpoint), \
            mock.patch('clip.load', load_clip), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torchvision's, about the argument MMagic gives it
        yield


# -------------------------------------------------------------------------------------------- cases


class Case:
    """One file of the corpus: its description and its tensors, floats in float64."""

    def __init__(self, name, description, tensors, storage):
        self.name = name  # 'family/case'
        self.description = description  # __metadata__['case']
        self.tensors = tensors  # {name: tensor}, everything in the file
        self.storage = storage  # the dtype that floats have in the file

    @classmethod
    def read(cls, folder, name):
        """Reads the case `name` of the corpus in `folder`."""
        with safe_open(Path(folder) / f'{name}.safetensors', 'pt') as file:
            description = json.loads(file.metadata()['case'])
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        floats = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
        storage, = floats  # never mixed
        tensors = {key: tensor.double() if tensor.is_floating_point() else tensor
                   for key, tensor in tensors.items()}
        return cls(name, description, tensors, storage)

    def stored(self):
        """The tensors as they are in the file."""
        return {key: tensor.to(self.storage) if tensor.is_floating_point() else tensor
                for key, tensor in self.tensors.items()}

    def write(self, folder):
        """Writes the case into the corpus in `folder`."""
        path = Path(folder) / f'{self.name}.safetensors'
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.description, sort_keys=True)
        save_file({key: tensor.contiguous() for key, tensor in self.stored().items()}, path,
                  metadata={'case': text})

    def under(self, prefix):
        """The tensors whose name starts with `prefix`, which is taken off their names."""
        return {key[len(prefix):]: tensor for key, tensor in self.tensors.items()
                if key.startswith(prefix)}


LAYERS = {
    'conv2d': lambda layer: nn.Conv2d(layer['in'], layer['out'], layer['kernel'],
                                      layer['stride'], layer['padding']),
    'linear': lambda layer: nn.Linear(layer['in'], layer['out']),
    'leaky_relu': lambda layer: nn.LeakyReLU(layer['slope']),
    'softplus': lambda layer: nn.Softplus(),
    'tanh': lambda layer: nn.Tanh(),
    'flatten': lambda layer: nn.Flatten(),
    'reshape': lambda layer: nn.Unflatten(1, layer['shape']),
}


def build_network(layers, parameters=None):
    """The network that a case describes, with the given parameters."""
    network = nn.Sequential(*(LAYERS[layer['kind']](layer) for layer in layers))
    if parameters is not None:
        network.load_state_dict(parameters)
    return network


class Run:
    """What a family's function works with: the case's configuration (`loss`), the arguments of
    the call (`call`, `inputs`, `nets`), and what builds the loss (`build`, `losses`)."""

    def __init__(self, case, registry, losses):
        self.losses = losses
        self.build = registry.build
        self.loss = case.description['loss']
        self.call = case.description['call']
        self.weights = case.description.get('weights')
        self.inputs = case.under('input.')
        self.nets = {name: build_network(layers, case.under(f'net.{name}.'))
                     for name, layers in case.description.get('nets', {}).items()}


# ------------------------------------------------------------------------- the families, by MMagic


def pixelwise(run):
    """Losses of images, whose arguments have MMagic's names. `tv_loss` is a function."""
    if run.loss['type'] == 'tv_loss':
        return run.losses.tv_loss(**run.inputs)
    return run.build(run.loss)(**run.inputs)


def composition(run):
    """The matting losses, whose arguments have MMagic's names."""
    return run.build(run.loss)(**run.inputs)


def gan(run):
    """GANLoss and GANLossComps, the blur that GANLoss uses, and DeblurGANv2's AdvLoss."""
    kind = run.loss['type']
    if kind == 'GaussianBlur':
        loss = {key: tuple(value) if isinstance(value, list) else value
                for key, value in run.loss.items()}
        return run.build(loss)(**run.inputs)
    if kind != 'AdvLoss':
        return run.build(run.loss)(**run.inputs, **run.call)

    loss = run.build(run.loss)
    net, fake, real = run.nets['net'], run.inputs['fake'], run.inputs['real']
    if run.loss['loss_type'].startswith('ragan') and run.call['model'] == 'generator':
        loss(net, fake, real, model='discriminator')  # fills the pools of predictions
    with mock.patch('torch.rand', lambda *shape: run.inputs['alpha']):
        return loss(net, fake, real, **run.call)


def penalties(run):
    """The penalties on a gradient, and the shift of the discriminator's scores.

    A component is called directly, as the case has no `data_info`. Called so, MMagic's
    GradientPenaltyLossComps does not hand on its `norm_mode`: the cases of the corpus that say
    `HWC` hold the value of `pixel`. With `data_info` in the case's configuration MMagic hands it
    on; the fresh `HWC` cases have it.
    """
    kind = run.loss['type']
    if kind.startswith('DiscShift'):
        return run.build(run.loss)(run.inputs['pred'])
    if kind == 'GeneratorPathRegularizerComps':
        return path_length(run)

    arguments = {**run.nets, **run.inputs}
    alpha = arguments.pop('alpha', None)
    loss = run.build(run.loss)
    with mock.patch('torch.rand', lambda *shape: alpha):
        return loss(arguments) if 'data_info' in run.loss else loss(**arguments)


def path_length(run):
    """GeneratorPathRegularizerComps, with the path lengths that it computes and does not return.

    It is given its inputs through `data_info`: called directly it ignores its own options.
    """
    latents, seen = run.inputs['latents'].requires_grad_(), {}

    def generator(_, num_batches, return_latents):
        assert num_batches == len(latents) and return_latents
        return {'fake_img': run.nets['generator'](latents), 'latent': latents}

    def regularizer(**arguments):
        seen['result'] = run.losses.gen_path_regularizer(**arguments)
        return seen['result']

    outputs = {'generator': generator, 'num_batches': run.call['num_batches']}
    loss = run.build({**run.loss, 'data_info': {name: name for name in outputs}})
    loss.mean_path_length = torch.tensor(run.call['mean_path_length'])
    module = 'mmagic.models.losses.loss_comps.gen_auxiliary_loss_comps.gen_path_regularizer'
    with mock.patch(module, regularizer), \
            mock.patch('torch.randn_like', lambda image: run.inputs['noise']):
        penalty = loss(outputs)
    _, mean, lengths = seen['result']
    return {'penalty': penalty, 'mean_path_length': mean, 'path_lengths': lengths}


def perceptual(run):
    """The losses with a backbone, in evaluation mode, and TransferalPerceptualLoss."""
    kind = run.loss['type']
    if kind == 'TransferalPerceptualLoss':
        maps, textures = (
            tuple(run.inputs[f'{name}.{level}'] for level in range(3))
            for name in ('maps', 'textures'))
        return run.build(run.loss)(maps, run.inputs['soft_attention'], textures)

    with seeded_backbones(run.weights):
        loss = run.build(run.loss).double().eval()
    result = loss(**run.inputs)
    if kind == 'PerceptualLoss':
        return {name: value for name, value in zip(('perceptual', 'style'), result)
                if value is not None}
    return result


def recompute(case, registry, losses, cotangent=None):
    """Replaces the case's `value*` and `grad*` by what MMagic computes from its inputs. The
    gradients are those the case had. `cotangent(name, shape)` draws the cotangents; without it
    they are the case's."""
    run = Run(case, registry, losses)
    leaves = {}
    for key in case.under('grad.'):
        if key.startswith('net.'):
            _, net, parameter = key.split('.', 2)
            leaves[key] = run.nets[net].get_parameter(parameter)
        else:
            leaves[key] = run.inputs[key].requires_grad_()

    compute, _ = FAMILIES[case.name.split('/')[0]]
    values = compute(run)
    if not isinstance(values, dict):
        values = {'': values}
    values = {f'.{name}' if name else '': value.reshape(1) if value.dim() == 0 else value
              for name, value in values.items()}

    kept = {key: tensor.detach() for key, tensor in case.tensors.items()
            if key.startswith(('input.', 'net.'))}
    total = 0
    for name, value in values.items():
        weight = torch.ones(())
        if value.numel() > 1:
            weight = (cotangent(f'cotangent{name}', value.shape) if cotangent else
                      case.tensors[f'cotangent{name}'])
            kept[f'cotangent{name}'] = weight
        if name[1:] not in NOT_DIFFERENTIATED:
            total = total + (value * weight).sum()
    # the last bias of a network has no part in a penalty on its gradient: zero
    gradients = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)
    for key, gradient in zip(leaves, gradients):
        kept[f'grad.{key}'] = gradient.detach()
    for name, value in values.items():
        kept[f'value{name}'] = value.detach()
    case.tensors = kept
    case.description['source'] = source()


def source():
    """The software that computed a case."""
    version = importlib.metadata.version
    return f'mmagic {version("mmagic")} (PyPI), torch {version("torch").split("+")[0]}, float64'


# ------------------------------------------------------------------------------------ fresh inputs


class Draws:
    """The random choices for one case; each has its own stream, named after case and purpose."""

    def __init__(self, case, seed):
        self.case, self.seed = case, seed

    def choose(self, purpose, options):
        """One of `options`."""
        u, = uniforms(f'{self.case.name}/{purpose}', self.seed, 1)
        return options[int(u * len(options))]

    def normal(self, key, shape, scale=1.0):
        """A tensor of normal numbers."""
        numbers = normals(f'{self.case.name}/{key}', self.seed, math.prod(shape))
        return tensor_of(scale * numbers, shape)

    def like(self, key, shape):
        """A tensor of `shape`, distributed as the case's tensor `key`: constant, binary, uniform
        in [0, 1] or [-1, 1], or normal with standard deviation 1 or 3."""
        model, count = self.case.tensors[key], math.prod(shape)
        low, high = model.min().item(), model.max().item()
        if low == high:
            return torch.full(shape, low)
        u = uniforms(f'{self.case.name}/{key}', self.seed, count)
        if set(model.unique().tolist()) <= {0.0, 1.0}:
            return tensor_of(u < model.mean().item(), shape)
        if 0 <= low and high <= 1:
            return tensor_of(u, shape)
        if -1 <= low and high <= 1:
            return tensor_of(2 * u - 1, shape)
        return self.normal(key, shape, 3.0 if model.std().item() > 2 else 1.0)

    def image(self, channels, sizes=(5, 7, 9, 11, 13, 15)):
        """A shape (N, C, H, W) with one of the given channel counts and odd sizes."""
        return (self.choose('batch', (1, 2, 3)), self.choose('channels', channels),
                self.choose('height', sizes), self.choose('width', sizes))


def resized(case, old, new):
    """Shapes for the inputs of `case` when its image of shape `old` becomes `new`. An axis that
    has the image's size follows it; one of size 1 stays."""
    shapes = {}
    for key, tensor in case.tensors.items():
        if key.startswith('input.'):
            shapes[key] = tuple(after if size == before else size
                                for size, before, after in zip(tensor.shape, old, new))
    return shapes


def fresh_pixelwise(case, draws):
    """Any channels; GradientLoss takes one channel only."""
    image = case.tensors.get('input.pred', case.tensors.get('input.input'))
    one = case.description['loss']['type'] == 'GradientLoss'
    return resized(case, image.shape, draws.image((1,) if one else (1, 2, 4, 5)))


def fresh_composition(case, draws):
    """Any channels without a weight; MMagic expands a weight to three."""
    channels = (3,) if 'input.weight' in case.tensors else (1, 2, 4, 5)
    return resized(case, case.tensors['input.fg'].shape, draws.image(channels))


def fresh_gan(case, draws):
    """Any scores; one channel with smgan's mask, whose size need not be a multiple of theirs."""
    loss = case.description['loss']
    if loss['type'] == 'AdvLoss':
        return fresh_discriminator(case, draws, case.tensors['input.real'].shape)
    image = case.tensors.get('input.input', case.tensors.get('input.x'))
    shape = draws.image((1,) if 'input.mask' in case.tensors else (1, 2, 4, 5))
    shapes = resized(case, image.shape, shape)
    if 'input.mask' in shapes and image.shape != case.tensors['input.mask'].shape:
        shapes['input.mask'] = (shape[0], 1, draws.choose('mask height', (17, 21, 26)),
                                draws.choose('mask width', (16, 19, 27)))
    return shapes


def fresh_penalties(case, draws):
    """Other images and networks; for the path length other latents and other images."""
    kind = case.description['loss']['type']
    if kind.startswith('DiscShift'):
        old = case.tensors['input.pred'].shape
        return {'input.pred': draws.image((1, 2, 5))[:len(old)]}
    if kind != 'GeneratorPathRegularizerComps':
        if kind == 'GradientPenaltyLossComps' and case.description['loss']['norm_mode'] == 'HWC':
            arguments = [*case.description['nets'], *case.under('input.')]
            case.description['loss']['data_info'] = {
                name: name for name in arguments if name != 'alpha'}
        return fresh_discriminator(case, draws, case.tensors['input.real_data'].shape)

    batch, *image = draws.image((1, 2, 4), (3, 5, 7))
    latents = (batch, draws.choose('levels', (1, 3, 4)), draws.choose('latent', (3, 6, 7)))
    case.description['call']['num_batches'] = batch * case.description['loss']['pl_batch_shrink']
    _, first, _, second, reshape, convolution, _ = case.description['nets']['generator']
    first['in'] = latents[1] * latents[2]
    second['out'] = math.prod(image)
    reshape['shape'] = image
    convolution['in'] = convolution['out'] = image[0]
    return {'input.latents': latents, 'input.noise': (batch, *image)}


def fresh_discriminator(case, draws, old):
    """Other images, and the case's one network fitted to them."""
    new = draws.image((1, 2, 4, 5), (7, 9, 11, 13))
    layers, = case.description['nets'].values()
    layers[0]['in'] = new[1]
    flatten = next(i for i, layer in enumerate(layers) if layer['kind'] == 'flatten')
    features = build_network(layers[:flatten + 1])(torch.zeros(1, *new[1:]))
    layers[flatten + 1]['in'] = features.shape[1]
    return resized(case, old, new)


def fresh_perceptual(case, draws):
    """Other sizes; the backbones take three channels, and CLIP an image that comes out of its
    pooling at the network's size (one pixel more than the case's does)."""
    kind = case.description['loss']['type']
    batch = draws.choose('batch', (1, 2, 3))
    if kind == 'TransferalPerceptualLoss':
        height, width = draws.choose('height', (3, 5, 7)), draws.choose('width', (3, 5, 7))
        channels = draws.choose('channels', (1, 2, 5))
        shapes = {'input.soft_attention': (batch, 1, height, width)}
        for level in range(3):
            shape = (batch, channels, height << level, width << level)
            shapes[f'input.maps.{level}'] = shapes[f'input.textures.{level}'] = shape
        return shapes
    image = case.tensors[{'PerceptualLoss': 'input.x', 'CLIPLoss': 'input.image'}.get(
        kind, 'input.pred')]
    _, channels, height, width = image.shape
    if kind == 'CLIPLoss':
        texts, length = case.tensors['input.text'].shape
        texts = draws.choose('texts', (1, 2, 3))
        return {'input.image': (batch, channels, height + 1, width + 1),
                'input.text': (texts, length)}
    if kind == 'FaceIdLoss':
        # a height of 256 is not pooled, and then any width that holds the crop will do
        shape = (256, 231) if height == 256 else (131, 117)
    elif kind == 'LightCNNFeatureLoss':
        shape = (draws.choose('height', (75, 99)), draws.choose('width', (83, 131)))
    else:
        shape = (draws.choose('height', (33, 37, 45)), draws.choose('width', (35, 39, 47)))
    return resized(case, image.shape, (batch, channels, *shape))


def fresh_text(case, draws, shape):
    """Token ids as CLIP's tokeniser lays them out: start, words, end, zeros. The end has the
    largest id."""
    vocabulary = case.description['weights']['architecture']['vocab_size']
    text = torch.zeros(shape, dtype=torch.int64)
    for row in range(shape[0]):
        words = draws.choose(f'words {row}', range(1, min(shape[1] - 1, 12)))
        ids = uniforms(f'{case.name}/text {row}', draws.seed, words) * (vocabulary - 3) + 1
        text[row, :words + 2] = torch.tensor(
            [vocabulary - 2, *(int(number) for number in ids), vocabulary - 1])
    return text


# For each family: what computes a case, and what gives its inputs other shapes.
FAMILIES = {
    'pixelwise': (pixelwise, fresh_pixelwise),
    'composition': (composition, fresh_composition),
    'gan': (gan, fresh_gan),
    'penalties': (penalties, fresh_penalties),
    'perceptual': (perceptual, fresh_perceptual),
}


def draw_inputs(case, seed):
    """Replaces the inputs and the networks' parameters of `case` by drawn ones, of other shapes;
    returns the function that draws its cotangents."""
    model = Case(case.name, copy.deepcopy(case.description), dict(case.tensors), case.storage)
    draws = Draws(model, seed)
    _, fresh = FAMILIES[case.name.split('/')[0]]
    shapes = fresh(case, draws)

    for key, shape in shapes.items():
        if key == 'input.text':
            case.tensors[key] = fresh_text(case, draws, shape)
        else:
            case.tensors[key] = draws.like(key, shape)
    if case.name.endswith('_identical'):
        case.tensors['input.target'] = case.tensors['input.pred'].clone()

    for name, layers in case.description.get('nets', {}).items():
        for parameter, tensor in build_network(layers).state_dict().items():
            key = f'net.{name}.{parameter}'
            scale = 1 / math.sqrt(tensor[0].numel()) if tensor.dim() > 1 else 0.1
            case.tensors[key] = draws.normal(key, tuple(tensor.shape), scale)

    note = f'inputs drawn with seed {seed}'
    if 'note' in case.description:
        note = f'{case.description["note"]}; {note}'
    case.description['note'] = note
    return draws.normal


# -------------------------------------------------------------------------------------------- check


def relative_error(ours, theirs):
    """The largest difference, relative to the largest element of `theirs`. Where that is zero the
    difference itself."""
    difference = (ours.double() - theirs.double()).abs().max().item()
    scale = theirs.double().abs().max().item()
    return difference / scale if scale else difference


class Comparison:
    """Collects how recomputed cases differ from a corpus, and prints it by family."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.rows = {}  # (family, dtype): cases, tensors, equal tensors, worst error, where
        self.failures = []

    def add(self, case):
        """Compares one case with the file of the same name."""
        if not (self.folder / f'{case.name}.safetensors').exists():
            self.failures.append(f'{case.name}: not in {self.folder}')
            return
        theirs = Case.read(self.folder, case.name)
        dtype = str(case.storage).removeprefix('torch.')
        row = self.rows.setdefault((case.name.split('/')[0], dtype), [0, 0, 0, 0.0, ''])
        row[0] += 1
        if case.description != theirs.description:
            self.failures.append(f'{case.name}: another description')
        ours, theirs = case.stored(), theirs.stored()
        if layout(ours) != layout(theirs):
            self.failures.append(f'{case.name}: other tensors')
            return
        for key, tensor in ours.items():
            if not key.startswith(('value', 'grad')):
                if not torch.equal(tensor, theirs[key]):
                    self.failures.append(f'{case.name}: another {key}')
                continue
            row[1] += 1
            row[2] += torch.equal(tensor, theirs[key])
            error = relative_error(tensor, theirs[key])
            if not error <= row[3]:  # also when it is not a number
                row[3:] = error, f'{case.name} {key}'
            if not error <= TOLERANCES[dtype]:
                self.failures.append(f'{case.name}: {key} is off by {error:.1e}')

    def missing(self, names):
        """Reports what the corpus has beside `names`."""
        for path in sorted(self.folder.glob('*/*.safetensors')):
            name = f'{path.parent.name}/{path.stem}'
            if path.parent.name in FAMILIES and name not in names:
                self.failures.append(f'{name}: only in {self.folder}')

    def report(self):
        """Prints the table and the failures; returns whether all is well."""
        print(f'{"family":12} {"stored":8} {"cases":>5} {"tensors":>7} {"identical":>9} '
              f'{"worst":>8} {"allowed":>8}  worst at')
        for (family, dtype), (cases, tensors, equal, worst, where) in self.rows.items():
            print(f'{family:12} {dtype:8} {cases:5} {tensors:7} {equal:9} {worst:8.1e} '
                  f'{TOLERANCES[dtype]:8.0e}  {where}')
        for failure in self.failures:
            print(f'FAILED {failure}')
        print('all agree' if not self.failures else f'{len(self.failures)} differences')
        return not self.failures


def layout(tensors):
    """Names, types and shapes of tensors."""
    return {key: (tensor.dtype, tuple(tensor.shape)) for key, tensor in tensors.items()}


# --------------------------------------------------------------------------------------------- main


def main():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--setup', metavar='VENV_DIR', help='make the virtual environment, and end')
    parser.add_argument('--out', metavar='DIR', help='write the recomputed cases here')
    parser.add_argument('--inputs', metavar='DIR', default=HERE, type=Path,
                        help="the corpus to take the cases from (default: the script's folder)")
    parser.add_argument('--filter', metavar='GLOB', default='*',
                        help="only the cases 'family/case' that match")
    parser.add_argument('--check', metavar='DIR',
                        help='compare with the corpus in DIR; exit with 1 where they differ')
    parser.add_argument('--fresh-inputs', action='store_true',
                        help='draw other inputs, of other shapes')
    parser.add_argument('--seed', type=int, default=0, help='for --fresh-inputs')
    options = parser.parse_args()

    if options.setup:
        set_up(options.setup)
        return
    if not options.out and not options.check:
        parser.error('nothing to do: give --out, --check or --setup')
    if options.fresh_inputs and options.out and \
            Path(options.out).resolve() == options.inputs.resolve():
        parser.error('--fresh-inputs would overwrite the corpus it is made after')
    if torch is None:
        parser.error('run --setup, then this script with the Python of that environment')

    names = [f'{family}/{path.stem}' for family in FAMILIES
             for path in sorted((options.inputs / family).glob('*.safetensors'))]
    chosen = [name for name in names if fnmatch.fnmatchcase(name, options.filter)]
    if not chosen:
        parser.error(f'no case of {options.inputs} matches {options.filter}')

    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    registry, losses = import_mmagic()
    comparison = Comparison(options.check) if options.check else None
    for number, name in enumerate(chosen, 1):
        print(f'[{number}/{len(chosen)}] {name}', file=sys.stderr, flush=True)
        case = Case.read(options.inputs, name)
        cotangent = draw_inputs(case, options.seed) if options.fresh_inputs else None
        recompute(case, registry, losses, cotangent)
        if options.out:
            case.write(options.out)
        if comparison:
            comparison.add(case)

    if options.out:
        print(f'{len(chosen)} cases written to {options.out}')
    if comparison:
        if chosen == names:
            comparison.missing(names)
        sys.exit(0 if comparison.report() else 1)


if __name__ == '__main__':
    main()
