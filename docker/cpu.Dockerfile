# syntax=docker/dockerfile:1
# tinyr1v on CPUs: the miniature, merges, and the smoke test of a cluster. Build from the repository's root:
#   docker build -f docker/cpu.Dockerfile -t tinyr1v-ray:0.1.0-cpu .
#   docker run --rm --shm-size=4g tinyr1v-ray:0.1.0-cpu tinyr1v train --config configs/miniature_ocr_cpu.yaml
# --build-arg PIP_INDEX_URL=URL: another package index. --build-arg TORCH_CPU_INDEX=URL: another index of torch's CPU builds.
FROM python:3.11.14-slim-bookworm

# make: the install steps. A compiler: DeepSpeed and torch compile extensions when they first run. procps: ps and kill.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make gcc g++ libnuma1 procps \
    && rm -rf /var/lib/apt/lists/*

# User 1000, as the Kubernetes manifests run it.
RUN useradd --uid 1000 --create-home --shell /bin/bash tinyr1v \
    && install --directory --owner=tinyr1v --group=tinyr1v /opt/tinyr1v
USER tinyr1v
WORKDIR /opt/tinyr1v
ENV PATH=/opt/tinyr1v/.venv/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1 \
    TOKENIZERS_PARALLELISM=false

# Only what decides which packages are installed comes first, so that a change of code keeps this layer.
COPY --chown=tinyr1v Makefile pyproject.toml constraints-cpu.txt README.md ./
COPY --chown=tinyr1v tinyr1v_ray/__init__.py tinyr1v_ray/cuda_wheels_on_cpu.py tinyr1v_ray/
ARG PIP_INDEX_URL
ARG TORCH_CPU_INDEX
RUN make install EXTRAS=cpu

COPY --chown=tinyr1v tinyr1v_ray tinyr1v_ray
COPY --chown=tinyr1v configs configs
COPY --chown=tinyr1v launch launch

RUN tinyr1v doctor --only python --only versions --only "torch fits" --only "cuda wheels" --only "import torch" \
    --only "import torchvision" --only "import vllm" --only "import deepspeed" --only all-reduce

HEALTHCHECK --interval=5m --timeout=60s --start-period=30s --retries=3 \
    CMD ["tinyr1v", "doctor", "--only", "shared memory", "--only", "disk", "--only", "limits"]
CMD ["tinyr1v", "doctor"]
