"""Packed rows as a model takes them: what rows see of each other, and where images go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedInputs:
    """Rows of several prompts and completions, on one device (`learner/micro_batch.py` says how they are packed).

    `segment_RL` numbers the prompts of a row (padding -1), `branch_RL` is 0 on a prompt and 1..k on its completions;
    `is_plain` rows hold one completion each, padded on the right. `image_slot_N` are places in [R * L], ascending, that
    take row `feature_N` of the encoded images. `pixels` None means that there is no image.
    """

    token_ids_RL: Tensor
    position_ids_ARL: Tensor
    segment_RL: Tensor
    branch_RL: Tensor
    is_plain: bool
    image_slot_N: Tensor
    feature_N: Tensor
    pixels: Mapping[str, Tensor] | None

    def to(self, device: torch.device) -> Self:
        """Copy to a device."""

        def moved(value: Any) -> Any:
            if isinstance(value, Mapping):
                return {name: moved(tensor) for name, tensor in value.items()}
            return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value

        return replace(self, **{field.name: moved(getattr(self, field.name)) for field in fields(self)})

    def attention_mask(self) -> Tensor | None:
        """bool [R, 1, L, L], True where i sees j: j <= i, in the same segment, on the prompt or i's own branch.

        Padding sees padding, so no row of the softmax is empty. None for plain rows, where causality is enough.
        """
        if self.is_plain:
            return None
        num_branches = int(self.branch_RL.max()) + 1
        prompt_RL = self.segment_RL * num_branches
        place_RL = prompt_RL + self.branch_RL
        sees_RLL = (place_RL[:, None, :] == place_RL[:, :, None]) | (place_RL[:, None, :] == prompt_RL[:, :, None])
        return sees_RLL.tril_()[:, None]

    def image_mask(self) -> Tensor:
        """bool [R, L], True where an encoded image goes; read row by row, these places take the rows `feature_N`."""
        places = self.token_ids_RL.new_zeros(self.token_ids_RL.numel(), dtype=torch.bool)
        return places.index_fill(0, self.image_slot_N, True).view_as(self.token_ids_RL)

    def with_features(self, embeds_RLH: Tensor, features_NH: Tensor) -> Tensor:
        """Embeddings with encoded images in their places; without images, features of a blank one count zero times.

        Each image is encoded once; its features go to every segment that shows it, and their gradients are added up
        before one backward pass through the tower. Rows are selected by `index_select`, whose gradient, unlike that of
        indexing, is added up in a fixed order on the CPU.
        """
        if self.pixels is None:
            return embeds_RLH + features_NH.sum() * 0.0
        shown_NH = features_NH.index_select(0, self.feature_N)
        return embeds_RLH.flatten(0, 1).index_copy(0, self.image_slot_N, shown_NH).view_as(embeds_RLH)
