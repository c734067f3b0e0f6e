"""Accelerate's real FSDP2 path where there is no accelerator."""

from typing import Any

import pytest
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType


def shard_on_cpu(patch: pytest.MonkeyPatch) -> None:
    """Accelerate ignores FSDP on the CPU and trains with DDP; mark its state as FSDP right after it is made."""
    made = AcceleratorState.__init__

    def init(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        fresh = not self.__dict__ and AcceleratorState._shared_state.get("mixed_precision") is None
        made(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fresh and fsdp_plugin is not None:
            if self._mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self._mixed_precision)
            self.fsdp_plugin = fsdp_plugin
            self.distributed_type = DistributedType.FSDP
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    patch.setattr(AcceleratorState, "__init__", init)
