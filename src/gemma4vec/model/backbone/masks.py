"""Who may see whom: attention masks for packed and padded rows, built rather than left to the model.

Left alone, most models let the documents of a packed row see each other (see docs/architecture.md, "Packing"), so the
mask is always given. Two tokens see each other when they stand in the same document, in the order that the attention
mode allows, within the layer's sliding window.

How far a sliding window reaches differs between model types: see `families.Reach`.
"""

import torch
from torch import Tensor

from gemma4vec.model.backbone.families import Reach


def attention_mask(
    positions_RC: Tensor,
    segments_RC: Tensor,
    *,
    causal: bool,
    reach: Reach | None = None,
    beginnings_RC: Tensor | None = None,
    shared: int = 0,
) -> Tensor:
    """Boolean mask `[R, 1, C, C]`, true where the row's token may look at the column's.

    `reach` is a sliding window's. Padding cells see only themselves: a row of the mask without any true cell would give
    NaN in softmax attention. With `shared` beginnings (see `model.packing.shared_prefix`) the mask is `[R, 1, C,
    shared + C]`: first stand the cells of row 0 that hold them, which a document in any row sees as its own first
    tokens.
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
        if not causal or beginnings_RC is None:
            raise ValueError("a beginning is only shared where no token sees what follows: attention is not causal")
        begun_RCS = (beginnings_RC[:, :, None] == segments_RC[0, :shared]) & (beginnings_RC >= 0)[:, :, None]
        if reach is not None:
            begun_RCS &= positions_RC[:, :, None] - positions_RC[0, :shared] <= reach.back
        mask_RCC = torch.cat([begun_RCS, mask_RCC], dim=2)
    return mask_RCC.unsqueeze(1)
