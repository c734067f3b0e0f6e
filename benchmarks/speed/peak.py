"""The most FLOPs a second that a matrix product reaches on this machine: what utilisation is a share of."""

from typing import Any

import torch

from speed.clock import Clock, in_turn


def matmul_peak(device: str, size: int, rounds: int, clock: Clock, *, bf16: bool) -> dict[str, Any]:
    """The fastest of several products of square matrices, each repeated so that launching it does not count."""
    dtype = torch.bfloat16 if bf16 else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    repeats = 10 if device == "cuda" else 2

    def ready(turn: int) -> Any:
        def run() -> None:
            for _ in range(repeats):
                a @ b

        return run

    (seconds,) = in_turn({"product": ready}, rounds, clock).values()
    return {"size": size, "dtype": str(dtype), "teraflops": 2 * size**3 * repeats / min(seconds) / 1e12}
