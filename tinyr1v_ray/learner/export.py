"""The specialist as a Hugging Face folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tinyr1v_ray.errors import CheckpointError, RunFolderError
from tinyr1v_ray.files.durable import replace_folder

WEIGHTS_FILE = "model.safetensors"

_WEIGHT_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".index.json")


def write_export(folder: Path, model_folder: Path, write_weights: Callable[[Path], None]) -> None:
    """A copy of `model_folder` with new float32 weights: tokenizer, processor, template and generation config as is.

    Everything is written beside `folder` and appears there by one rename. An earlier export in its place is replaced.
    Raises RunFolderError when something else is there, CheckpointError when the disk does not take it.
    """
    if folder.exists() and not (folder / "config.json").is_file():
        raise RunFolderError(f"{folder} exists and is no model folder; an export replaces only an export; move it")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for path in sorted(model_folder.iterdir()):
            if path.is_file() and not path.name.startswith(".") and not path.name.endswith(_WEIGHT_ENDINGS):
                shutil.copyfile(path, partial / path.name)
        _declare_float32(partial / "config.json")
        write_weights(partial / WEIGHTS_FILE)
        replace_folder(partial, folder)
    except OSError as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"export to {folder} failed: {error.strerror}; it needs its disk; free it") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _declare_float32(path: Path) -> None:
    """Say in the config, at every level, that the weights are float32."""
    config = json.loads(path.read_text(encoding="utf-8"))
    levels = [
        config,
        *(config[name] for name in ("text_config", "vision_config") if isinstance(config.get(name), dict)),
    ]
    for level in levels:
        for key in ("dtype", "torch_dtype"):
            if key in level:
                level[key] = "float32"
    if "torch_dtype" not in config:
        config["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
