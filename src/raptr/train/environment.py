"""Where a run was made: what a reader needs to judge its clock and repeat it."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

import raptr
from raptr.rundir.run_record import Environment


def describe_environment() -> Environment:
    """Versions, processor, threads and accelerator, as plain data."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return Environment(
        python=platform.python_version(),
        raptr=raptr.__version__,
        torch=version("torch"),
        transformers=version("transformers"),
        accelerate=version("accelerate"),
        numpy=version("numpy"),
        platform=platform.platform(terse=True),
        cpu=_processor(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        device=device,
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
