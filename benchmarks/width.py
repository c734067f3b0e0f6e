"""What layers with some of their heads and neurons cost.

    python benchmarks/width.py                    # about two minutes on one core
    python benchmarks/width.py --rounds 30 --output benchmarks/results/width.json

Times forward and backward of one Llama layer (sequences of 256 tokens, 8 of them) with shares of its heads and neurons
against the same layer before raptr was attached, then an optimizer's step with and without freezing what was not
selected. All variants take turns in every round, with other heads and neurons each time; ratios are to the untouched
layer in the same round. On the CPU it is the processor time of one thread: what a clock shows on a machine that nobody
else uses.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import raptr
from raptr.plan.layer_part import LayerPart
from raptr.plan.subnetwork import Subnetwork

SHARES = (0.25, 0.5, 0.75, 1.0)
OPTIMIZERS: dict[str, dict[str, Any]] = {"AdamW fused": {"fused": True}, "AdamW foreach": {"foreach": True}}


class Given:
    """A plan that is told what comes next."""

    def __init__(self) -> None:
        self.next = Subnetwork.of((0,))

    def subnetwork(self, step: int, micro: int = 0) -> Subnetwork:
        """What was given."""
        return self.next

    def transition(self, step: int) -> tuple[()]:
        """Nothing is copied."""
        return ()


def config(hidden: int) -> LlamaConfig:
    """One layer with heads of 64 and an MLP of 8/3 of the width."""
    return LlamaConfig(
        vocab_size=64,
        hidden_size=hidden,
        intermediate_size=round(hidden * 8 / 3 / 32) * 32,
        num_hidden_layers=1,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        head_dim=64,
        max_position_embeddings=1024,
        use_cache=False,
    )


def draw(shape: Any, share: float, rng: np.random.Generator) -> Subnetwork:
    """A random share of the heads and neurons of the only layer."""
    stack = shape.stacks[0]

    def some(count: int) -> tuple[int, ...]:
        return tuple(sorted(rng.choice(count, round(count * share), replace=False).tolist()))

    return Subnetwork(((0,),), ((LayerPart(heads=some(stack.heads), neurons=some(stack.neurons)),),))


class Clock:
    """Seconds of one thread of the processor, or of a GPU that has finished."""

    def __init__(self, device: str) -> None:
        self.device = device

    def __call__(self) -> float:
        """Now."""
        if self.device == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()


def in_turn(
    variants: dict[str, Callable[[], Callable[[], object]]], rounds: int, clock: Clock
) -> dict[str, list[float]]:
    """Seconds of each variant in each round. A variant is made ready, untimed, and then run."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 2):
        for name, ready in variants.items():
            run = ready()
            start = clock()
            run()
            if turn >= 2:  # the first ones warm up
                seconds[name].append(clock() - start)
    return seconds


def layer_times(hidden: int, rounds: int, device: str, tokens: tuple[int, int]) -> dict[str, list[float]]:
    """Forward and backward of a layer."""
    torch.manual_seed(0)
    plain, model = (LlamaForCausalLM(config(hidden)).to(device).train() for _ in range(2))
    x = torch.randn(*tokens, hidden, device=device, requires_grad=True)
    position = plain.model.rotary_emb(x, torch.arange(tokens[1], device=device)[None])
    net, plan, rng = raptr.attach(model), Given(), np.random.default_rng(0)

    def run_of(layer: nn.Module) -> Callable[[], object]:
        def run() -> None:
            layer.zero_grad()
            layer(x, position_embeddings=position, attention_mask=None).square().mean().backward()

        return run

    def ready_at(share: float) -> Callable[[], Callable[[], object]]:
        def ready() -> Callable[[], object]:
            plan.next = draw(net.shape, share, rng) if share < 1 else Subnetwork.of((0,))
            net.activate(plan, 0)
            return run_of(model.model.layers[0])

        return ready

    variants: dict[str, Any] = {"untouched": lambda: run_of(plain.model.layers[0])}
    variants |= {f"{share:.0%}": ready_at(share) for share in SHARES}
    variants["untouched again"] = variants["untouched"]
    return in_turn(variants, rounds, Clock(device))


def optimizer_times(hidden: int, rounds: int, device: str, share: float, options: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's step for a layer of which a share has gradients."""
    torch.manual_seed(0)
    plan, rng = Given(), np.random.default_rng(0)
    variants: dict[str, Any] = {}
    for inactive in ("zero", "freeze"):
        model = LlamaForCausalLM(config(hidden)).to(device).train()
        net = raptr.attach(model)
        optimizer = torch.optim.AdamW(model.model.layers.parameters(), **options)
        net.prepare(optimizer, inactive=inactive)
        grads = {p: torch.randn_like(p) for p in model.model.layers.parameters()}

        def ready(net: Any = net, optimizer: Any = optimizer, model: Any = model, grads: Any = grads) -> Any:
            plan.next = draw(net.shape, share, rng)
            net.activate(plan, 0)
            x = torch.zeros(1, 1, hidden, device=device)
            position = model.model.rotary_emb(x, torch.zeros(1, 1, dtype=torch.long, device=device))
            model.model.layers[0](x, position_embeddings=position, attention_mask=None)
            for p, grad in grads.items():
                p.grad = grad
            return optimizer.step

        variants[inactive] = ready
    variants["zero again"] = variants["zero"]
    return in_turn(variants, rounds, Clock(device))


def summary(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Medians, and the ratio to the first variant in the same round with its quartiles."""
    base, *_ = seconds.values()
    found = {}
    for name, times in seconds.items():
        low, middle, high = quantiles([t / b for t, b in zip(times, base, strict=True)], n=4)
        found[name] = {"milliseconds": 1e3 * median(times), "ratio": middle, "low": low, "high": high}
    return found


def main() -> None:
    """Measure, print a table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, nargs="+", default=[512, 768])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for hidden in args.hidden:
        tokens = (args.batch, args.length)
        results[f"layer of {hidden}"] = summary(layer_times(hidden, args.rounds, args.device, tokens))
        for name, options in OPTIMIZERS.items():
            seconds = optimizer_times(hidden, 3 * args.rounds, args.device, 0.5, options)
            results[f"{name}, layer of {hidden}, 50%"] = summary(seconds)
    for title, rows in results.items():
        print(f"\n{title}\n{'':24}{'ms':>10}{'ratio':>8}   quartiles")
        for name, row in rows.items():
            print(f"{name:24}{row['milliseconds']:10.2f}{row['ratio']:8.3f}   {row['low']:.3f} to {row['high']:.3f}")
    machine = {
        "machine": torch.cuda.get_device_name() if args.device == "cuda" else processor(),
        "threads": 1,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "raptr": raptr.__version__,
        "batch": args.batch,
        "length": args.length,
        "rounds": args.rounds,
    }
    print(f"\n{machine}")
    if args.output is not None:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")


def processor() -> str:
    """The processor's name, where the system says it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
