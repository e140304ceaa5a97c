"""Attention masks for packed and padded rows.

The mask is always passed to the model: by itself, most models let the documents of a packed row see each other. Two
tokens see each other if they belong to the same document, in the direction that the attention mode allows, within the
layer's sliding window. The reach of a window differs between model types (`architectures.Reach`).

Shapes: R rows, C columns, S cells of shared prefixes.
"""

import torch
from torch import Tensor

from gemma4vec.model.backbone.architectures import Reach


def attention_mask(
    positions_RC: Tensor,
    segments_RC: Tensor,
    *,
    causal: bool,
    reach: Reach | None = None,
    prefix_RC: Tensor | None = None,
    shared: int = 0,
) -> Tensor:
    """Boolean mask `[R, 1, C, C]`, true if the query's token sees the key's token.

    Padding cells see only themselves: a row of the mask without a true cell would give NaN in softmax attention.

    Args:
        positions_RC: position of each token in its document.
        segments_RC: document of each cell in its row, -1 for padding.
        causal: a token sees no later one.
        reach: what a token sees in a layer with a sliding window; None: no window.
        prefix_RC: segment of row 0 that holds the shared prefix of a cell's document, or -1.
        shared: S. If not 0, the mask is `[R, 1, C, S + C]`: its first S keys are the cells of row 0 that hold shared
            prefixes, which a document in any row sees as its own first tokens.

    Raises:
        ValueError: prefixes are shared and attention is not causal.
    """
    same_RCC = segments_RC[:, :, None] == segments_RC[:, None, :]
    real_RC = segments_RC >= 0
    back_RCC = positions_RC[:, :, None] - positions_RC[:, None, :]
    seen_RCC = same_RCC & real_RC[:, :, None]
    if causal:
        seen_RCC &= back_RCC >= 0
    if reach is not None:
        seen_RCC &= (back_RCC <= reach.back) & (-back_RCC <= reach.ahead)
    columns = positions_RC.shape[1]
    itself_CC = torch.eye(columns, dtype=torch.bool, device=positions_RC.device)
    mask_RCC = seen_RCC | (itself_CC & ~real_RC[:, :, None])
    if shared:
        if not causal or prefix_RC is None:
            raise ValueError("prefixes cannot be shared: attention is not causal")
        begun_RCS = (prefix_RC[:, :, None] == segments_RC[0, :shared]) & (prefix_RC >= 0)[:, :, None]
        if reach is not None:
            begun_RCS &= positions_RC[:, :, None] - positions_RC[0, :shared] <= reach.back
        mask_RCC = torch.cat([begun_RCS, mask_RCC], dim=2)
    return mask_RCC.unsqueeze(1)
