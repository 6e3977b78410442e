# syntax=docker/dockerfile:1
# tinyr1v on NVIDIA GPUs. Build from the repository's root:
#   docker build -f docker/gpu.Dockerfile -t tinyr1v-ray:0.1.0-gpu .
#   docker run --rm --gpus all --shm-size=32g tinyr1v-ray:0.1.0-gpu tinyr1v doctor
# --build-arg PIP_INDEX_URL=URL: another package index.
# The CUDA libraries come with the wheels of torch and vLLM; the host brings the driver and NVIDIA's container runtime.
FROM python:3.11.14-slim-bookworm

# make: the install steps. A compiler: Triton, DeepSpeed and torch compile when they first run. libibverbs1 and
# ibverbs-providers: NCCL over InfiniBand. procps: ps and kill.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make gcc g++ libnuma1 libibverbs1 ibverbs-providers procps \
    && rm -rf /var/lib/apt/lists/*

# User 1000, as the Kubernetes manifests run it.
RUN useradd --uid 1000 --create-home --shell /bin/bash tinyr1v \
    && install --directory --owner=tinyr1v --group=tinyr1v /opt/tinyr1v
USER tinyr1v
WORKDIR /opt/tinyr1v
ENV PATH=/opt/tinyr1v/.venv/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1 \
    TOKENIZERS_PARALLELISM=false \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# Only what decides which packages are installed comes first, so that a change of code keeps this layer.
COPY --chown=tinyr1v Makefile pyproject.toml constraints-gpu.txt README.md ./
COPY --chown=tinyr1v tinyr1v_ray/__init__.py tinyr1v_ray/
ARG PIP_INDEX_URL
RUN make install EXTRAS=gpu

COPY --chown=tinyr1v tinyr1v_ray tinyr1v_ray
COPY --chown=tinyr1v configs configs
COPY --chown=tinyr1v launch launch

# No GPU is at hand while an image is built: what needs one is looked at by the container, see CMD.
RUN tinyr1v doctor --only python --only versions --only "torch fits" --only "import torch" --only "import torchvision" --only all-reduce

HEALTHCHECK --interval=5m --timeout=60s --start-period=30s --retries=3 \
    CMD ["tinyr1v", "doctor", "--only", "gpus", "--only", "shared memory", "--only", "disk", "--only", "limits"]
CMD ["tinyr1v", "doctor"]
