"""The engines' half of the transport `cpu_file`, as a weight-transfer backend of vLLM.

vLLM's own backends need CUDA. This one takes the same four phases (init, start, update, finish) and reads a file that
the learner wrote, usually in memory (/dev/shm). It is registered through the `vllm.general_plugins` entry point, so
that every process of the engine knows it. Traps it takes care of, both seen with vLLM 0.32:

- the base class ends an update with an accelerator synchronisation, which raises where there is none;
- with tied embeddings `lm_head` keeps a packed copy of the old weights after a layerwise reload, and the engine's
  checksum does not see it: the copy is rebuilt at the end of each update.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from safetensors import safe_open
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

BACKEND = "cpu_file"


@dataclass
class FileInitInfo(WeightTransferInitInfo):
    """The fields of `FileSource`."""


@dataclass
class FileUpdateInfo(WeightTransferUpdateInfo):
    """The fields of `FileUpdate`."""

    path: str


class FileReceiver(WeightTransferEngine[FileInitInfo, FileUpdateInfo]):
    """Reads weights from a file into a model on the CPU."""

    init_info_cls = FileInitInfo
    update_info_cls = FileUpdateInfo

    def init_transfer_engine(self, init_info: FileInitInfo) -> None:
        """Nothing to connect to."""

    def start_weight_update(self) -> None:
        """Put the layers into the state in which checkpoint weights can be loaded into them again."""
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Receive one file; replaces the base class's, which would synchronise an accelerator."""
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: FileUpdateInfo) -> None:
        """Load every tensor of the file."""
        with safe_open(update_info.path, framework="pt") as file:
            self.model.load_weights([(name, file.get_tensor(name)) for name in file.keys()])  # noqa: SIM118

    def finish_weight_update(self) -> None:
        """Post-process the layers and rebuild the packed head."""
        finalize_layerwise_reload(self.model, self.model_config)
        for name, layer in self.model.named_modules():
            if name.endswith("lm_head") and hasattr(layer, "cpu_linear"):
                layer.quant_method.process_weights_after_loading(layer)

    def shutdown(self) -> None:
        """Nothing to release."""


def register() -> None:
    """Entry point `vllm.general_plugins`; called in every vLLM process, more than once in some."""
    with contextlib.suppress(ValueError):  # registered already
        WeightTransferEngineFactory.register_engine(BACKEND, FileReceiver)
