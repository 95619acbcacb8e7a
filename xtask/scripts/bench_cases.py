"""The cases of `cargo xtask bench` as a user of PyTorch writes them, or MMagic where its formula is the point.

`build` returns a function of a dictionary of tensors to a value with one element.
"""

import torch
import torch.nn.functional as F
from safetensors.torch import load_file


def masked_mean(loss, weight):
    """MMagic's weighted mean: the weight is expanded, both are summed."""
    loss = loss * weight
    if weight.size(1) == 1:
        weight = weight.expand_as(loss)
    return loss.sum() / (weight.sum() + 1e-12)


def charbonnier(x, y, eps):
    return torch.sqrt((x - y) ** 2 + eps)


def sobel(x):
    """The Sobel responses of one-channel images, channel by channel."""
    kernel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], dtype=x.dtype)
    n, c, h, w = x.shape
    planes = x.reshape(n * c, 1, h, w)
    across = F.conv2d(planes, kernel.reshape(1, 1, 3, 3), padding=1)
    along = F.conv2d(planes, kernel.t().reshape(1, 1, 3, 3), padding=1)
    return across.reshape(x.shape), along.reshape(x.shape)


def masked_tv(x, mask):
    rows = masked_mean(torch.abs(x[:, :, :-1] - x[:, :, 1:]), mask[:, :, :-1])
    columns = masked_mean(torch.abs(x[..., :-1] - x[..., 1:]), mask[..., :-1])
    return rows + columns


def tv(x):
    y = F.pad(x, (0, 1, 0, 1), "replicate")
    across = y[..., :-1, 1:] - y[..., :-1, :-1]
    along = y[..., 1:, :-1] - y[..., :-1, :-1]
    return (across**2 + along**2).mean([1, 2, 3]).sum()


def psnr(x, y):
    return (10 / torch.log(torch.tensor(10.0)) * torch.log(((x - y) ** 2).mean(dim=(1, 2, 3)) + 1e-8)).mean()


def gaussian_kernel(dtype):
    i = torch.arange(71, dtype=torch.float64) - 35
    kernel = torch.exp(-0.5 * (i / 10) ** 2)
    kernel = kernel / kernel.sum()
    return (kernel[:, None] * kernel[None]).to(dtype).reshape(1, 1, 71, 71)


def soft_mask(scores, mask, kernel):
    target = F.conv2d(mask, kernel, padding=35)
    return ((scores - target) ** 2).mean()


def composition(alpha, fg, bg, merged, weight, eps):
    return masked_mean(charbonnier(alpha * fg + (1.0 - alpha) * bg, merged, eps), weight)


def vgg_features(x, weights, layers):
    """torchvision's VGG-19 features at some layers, in order; after each ReLU a new tensor, as MMagic copies them."""
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=x.dtype).reshape(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], dtype=x.dtype).reshape(1, 3, 1, 1)
    x = (x - mean) / std
    found = []
    index = 0
    for count in (2, 2, 4, 4, 4):
        for _ in range(count):
            x = F.conv2d(x, weights[f"features.{index}.weight"], weights[f"features.{index}.bias"], padding=1)
            if index in layers:
                found.append(x)
                if len(found) == len(layers):
                    return found
            x = F.relu(x)
            index += 2
        x = F.max_pool2d(x, 2)
        index += 1
    return found


def vgg_loss(description, tensors, dtype):
    """MMagic's PerceptualLoss with l1; the target's features without gradient, or known before."""
    weights = {name: t.to(dtype) for name, t in load_file(description["weights"]).items()}
    layers = dict(description["layers"])

    def target(t):
        with torch.no_grad():
            return vgg_features(t["target"], weights, layers)

    known = target({"target": tensors["target"].to(dtype)}) if description["cached"] else None

    def call(t):
        theirs = target(t) if known is None else known
        ours = vgg_features(t["prediction"], weights, layers)
        return sum(w * F.l1_loss(x, y) for w, x, y in zip(layers.values(), ours, theirs))

    return call


def light_cnn_features(x, weights):
    """MMagic's LightCNN.features."""
    for index in range(13):
        name = f"features.{index}.filter"
        if f"{name}.weight" in weights:
            weight = weights[f"{name}.weight"]
            x = F.conv2d(x, weight, weights[f"{name}.bias"], padding=weight.size(2) // 2)
            x = torch.max(*torch.split(x, x.size(1) // 2, 1))
        else:
            x = F.max_pool2d(x, 2, ceil_mode=True)
    return x


def light_cnn_loss(description, dtype):
    weights = {name: t.to(dtype) for name, t in load_file(description["weights"]).items()}

    def call(t):
        with torch.no_grad():
            theirs = light_cnn_features(t["target"], weights)
        return F.l1_loss(light_cnn_features(t["prediction"], weights), theirs)

    return call


def clip_tower(x, w):
    """The image tower of OpenAI's ViT-B/32, as its forward pass is written; embeddings of length 1."""
    width, heads = 768, 12
    x = F.conv2d(x, w["visual.conv1.weight"], stride=32).flatten(2).permute(0, 2, 1)
    x = torch.cat([w["visual.class_embedding"].expand(x.shape[0], 1, width), x], 1) + w["visual.positional_embedding"]
    norm = lambda x, name: F.layer_norm(x, (width,), w[f"{name}.weight"], w[f"{name}.bias"])
    x = norm(x, "visual.ln_pre")
    n, places, _ = x.shape
    for layer in range(12):
        p = f"visual.transformer.resblocks.{layer}"
        y = F.linear(norm(x, f"{p}.ln_1"), w[f"{p}.attn.in_proj_weight"], w[f"{p}.attn.in_proj_bias"])
        q, k, v = (t.reshape(n, places, heads, 64).transpose(1, 2) for t in y.chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, places, width)
        x = x + F.linear(y, w[f"{p}.attn.out_proj.weight"], w[f"{p}.attn.out_proj.bias"])
        y = F.linear(norm(x, f"{p}.ln_2"), w[f"{p}.mlp.c_fc.weight"], w[f"{p}.mlp.c_fc.bias"])
        x = x + F.linear(y * torch.sigmoid(1.702 * y), w[f"{p}.mlp.c_proj.weight"], w[f"{p}.mlp.c_proj.bias"])
    return F.normalize(norm(x[:, 0], "visual.ln_post") @ w["visual.proj"], dim=-1)


def clip_loss(description, dtype):
    weights = load_file(description["weights"])
    weights = {name: t.to(dtype) for name, t in weights.items() if name.startswith("visual") or name == "logit_scale"}
    scale = weights["logit_scale"].exp() / 100
    return lambda t: (1 - scale * clip_tower(t["prediction"], weights) @ t["target"].t()).mean()


def ir_se50(x, w):
    """IR-SE50 as InsightFace's PyTorch port has it, in evaluation mode; embeddings of length 1."""

    def norm(x, name):
        args = (f"{name}.running_mean", f"{name}.running_var", f"{name}.weight", f"{name}.bias")
        return F.batch_norm(x, *(w[a] for a in args))

    x = F.prelu(norm(F.conv2d(x, w["input_layer.0.weight"], padding=1), "input_layer.1"), w["input_layer.2.weight"])
    index = 0
    for units, channels in ((3, 64), (4, 128), (14, 256), (3, 512)):
        for unit in range(units):
            stride = 2 if unit == 0 else 1
            p, r = f"body.{index}", f"body.{index}.res_layer"
            if f"{p}.shortcut_layer.0.weight" in w:
                shortcut = F.conv2d(x, w[f"{p}.shortcut_layer.0.weight"], stride=stride)
                shortcut = norm(shortcut, f"{p}.shortcut_layer.1")
            else:
                shortcut = F.max_pool2d(x, 1, stride)
            y = F.conv2d(norm(x, f"{r}.0"), w[f"{r}.1.weight"], padding=1)
            y = F.conv2d(F.prelu(y, w[f"{r}.2.weight"]), w[f"{r}.3.weight"], stride=stride, padding=1)
            y = norm(y, f"{r}.4")
            s = F.conv2d(F.relu(F.conv2d(y.mean((2, 3), True), w[f"{r}.5.fc1.weight"])), w[f"{r}.5.fc2.weight"])
            x = y * torch.sigmoid(s) + shortcut
            index += 1
    x = F.linear(norm(x, "output_layer.0").flatten(1), w["output_layer.3.weight"], w["output_layer.3.bias"])
    return F.normalize(norm(x, "output_layer.4"), dim=1)


def face_loss(description, dtype):
    weights = {name: t.to(dtype) for name, t in load_file(description["weights"]).items() if t.is_floating_point()}

    def face(x):
        return F.adaptive_avg_pool2d(x[:, :, 35:223, 32:220], 112)

    def call(t):
        with torch.no_grad():
            theirs = ir_se50(face(t["target"]), weights)
        return (1 - (ir_se50(face(t["prediction"]), weights) * theirs).sum(1)).mean()

    return call


def build(description, tensors, dtype=torch.float32):
    kind = description["kind"]
    eps = description.get("eps", 1e-12)
    if kind in POINTWISE:
        return lambda t: POINTWISE[kind](t, eps)
    if kind == "smgan":
        kernel = gaussian_kernel(dtype)
        return lambda t: soft_mask(t["prediction"], t["mask"], kernel)
    if kind == "vgg19":
        return vgg_loss(description, tensors, dtype)
    if kind == "light_cnn":
        return light_cnn_loss(description, dtype)
    if kind == "clip":
        return clip_loss(description, dtype)
    if kind == "ir_se50":
        return face_loss(description, dtype)
    raise ValueError(f"unknown case {kind!r}")


def gradient_loss(t):
    pairs = zip(sobel(t["prediction"]), sobel(t["target"]))
    return sum(torch.abs(x - y).mean() for x, y in pairs)


POINTWISE = {
    "l1": lambda t, _: F.l1_loss(t["prediction"], t["target"]),
    "mse": lambda t, _: F.mse_loss(t["prediction"], t["target"]),
    "charbonnier": lambda t, eps: charbonnier(t["prediction"], t["target"], eps).mean(),
    "masked_charbonnier": lambda t, eps: masked_mean(charbonnier(t["prediction"], t["target"], eps), t["mask"]),
    "huber": lambda t, _: F.huber_loss(t["prediction"], t["target"]),
    "bce": lambda t, _: F.binary_cross_entropy_with_logits(t["prediction"], torch.ones_like(t["prediction"])),
    "hinge": lambda t, _: F.relu(1 - t["prediction"]).mean(),
    "composition": lambda t, eps: composition(t["prediction"], t["fg"], t["bg"], t["target"], t["mask"], eps),
    "psnr": lambda t, _: psnr(t["prediction"], t["target"]),
    "tv": lambda t, _: tv(t["prediction"]),
    "masked_tv": lambda t, _: masked_tv(t["prediction"], t["mask"]),
    "gradient": lambda t, _: gradient_loss(t),
}
