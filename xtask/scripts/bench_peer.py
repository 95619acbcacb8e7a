"""The other side of `cargo xtask bench`: the same work in PyTorch, told over a pipe.

Reads one JSON object per line and answers each with one. `load` prepares a case on the tensors of a safetensors file
and writes what it computes beside it (in double precision and in single); `time` times calls of the eager or the
compiled form, value and gradient together.
"""

import json
import sys
import time

import torch
from safetensors.torch import load_file, save_file

import bench_cases


class Case:
    """A case with its tensors: `call` computes the value and the gradient by the tensor `wanted`."""

    def __init__(self, description, tensors):
        self.function = bench_cases.build(description, tensors)
        self.description = description
        self.tensors = tensors
        self.wanted = description["wanted"]
        self.compiled = None

    def on(self, tensors):
        """The tensors as leaves: only `wanted` asks for a gradient."""
        return {name: t.detach().clone().requires_grad_(name == self.wanted) for name, t in tensors.items()}

    def prepare(self):
        self.leaves = self.on(self.tensors)

    def call(self, function):
        value = function(self.leaves)
        (gradient,) = torch.autograd.grad(value, self.leaves[self.wanted])
        return value.detach(), gradient

    def double(self):
        """Value and gradient in double precision."""
        tensors = {name: t.double() if t.is_floating_point() else t for name, t in self.tensors.items()}
        function = bench_cases.build(self.description, tensors, dtype=torch.float64)
        leaves = self.on(tensors)
        value = function(leaves)
        (gradient,) = torch.autograd.grad(value, leaves[self.wanted])
        return value.detach(), gradient


def load(request):
    case = Case(request["case"], load_file(request["file"]))
    value64, gradient64 = case.double()
    case.prepare()
    value, gradient = case.call(case.function)
    found = {
        "value64": value64.reshape(1),
        "gradient64": gradient64,
        "value": value.double().reshape(1),
        "gradient": gradient,
    }
    save_file({name: t.contiguous() for name, t in found.items()}, request["answer"])
    if request.get("compile", True):
        case.compiled = torch.compile(case.function)
        for _ in range(3):
            case.call(case.compiled)
    return case


def seconds(case, request):
    function = case.function if request["which"] == "eager" else case.compiled
    calls = request["calls"]
    case.call(function)
    start = time.perf_counter()
    for _ in range(calls):
        case.call(function)
    return (time.perf_counter() - start) / calls


def main():
    answers = sys.stdout
    sys.stdout = sys.stderr
    case = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "hello":
                torch.set_num_threads(request["threads"])
                answer = {"torch": torch.__version__, "threads": torch.get_num_threads()}
            elif request["do"] == "load":
                case = None
                torch._dynamo.reset()
                case = load(request)
                answer = {}
            elif request["do"] == "time":
                answer = {"seconds": seconds(case, request)}
            else:
                answer = {"error": f"unknown request {request['do']!r}"}
        except Exception as error:  # the other side prints it
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


main()
