"""A merged miniature goes straight into vLLM, image and all, and answers as transformers does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import Merge, write_expert

from tinyr1v_ray.miniature.base import base_model_folder

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
import torch
from PIL import Image
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration
from vllm import LLM, SamplingParams

folder = sys.argv[1]
image = Image.new("RGB", (56, 28), (40, 90, 160))
processor = AutoProcessor.from_pretrained(folder)
content = [{"type": "image"}, {"type": "text", "text": "12 + 7"}]
text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
inputs = processor(text=[text], images=[image], return_tensors="pt")
model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
with torch.no_grad():
    reference = torch.log_softmax(model(**inputs).logits[0, -1], -1)
engine = LLM(
    model=folder, dtype="float32", enforce_eager=True, max_model_len=256, max_num_seqs=2,
    enable_chunked_prefill=False, max_num_batched_tokens=1024, limit_mm_per_prompt={"image": 1, "video": 0},
    logprobs_mode="processed_logprobs", seed=0,
)
prompt = {"prompt": text, "multi_modal_data": {"image": image}}
answer = engine.generate(prompt, SamplingParams(max_tokens=1, temperature=1.0, logprobs=3))[0]
found = answer.outputs[0].logprobs[0]
assert len(found) >= 3
worst = max(abs(entry.logprob - float(reference[token])) for token, entry in found.items())
assert worst < 1e-4, worst
print("agrees")
"""


def test_vllm_loads_and_agrees_with_transformers(merge_here: Merge, tmp_path: Path) -> None:
    base = base_model_folder()
    experts = [str(write_expert(base, tmp_path / f"e{i}", seed=i, scale=1e-3)) for i in range(3)]
    merged = merge_here(base=str(base), experts=experts, method={"amm": {"steps": 20}}).output
    environment = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "HF_HUB_OFFLINE": "1",
    }
    # a process of its own: on a CPU vLLM takes the thread settings of its whole process away
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(merged)],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert "agrees" in done.stdout, done.stderr[-3000:]
