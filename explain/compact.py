"""Small maps: what both games need of a map, and nothing else, in 2 kB instead of 200.

The games look at the order of the pixels alone, and a map of the student is up-sampled from a few cells. So each pixel's
value becomes its place in that order, and each cell of a coarse grid keeps the mean place of its pixels: a spatial
softmax, whose values fall to nothing within a few pixels, keeps all of its order so. What is lost are the magnitudes.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata


def compact(saliency: np.ndarray, cells: int) -> np.ndarray:
    """Reduce a map to the mean place of each cell's pixels: `mean over the cell of (rank - 1/2) / (H W)`.

    The rank of a pixel is 1 for the least and H W for the greatest value; equal values share the mean of their ranks.
    Cells are those of adaptive average pooling: row i of n covers rows floor(i H / n) to ceil((i + 1) H / n).

    Args:
        saliency: (H, W), finite.
        cells: rows and columns of the small map; a side that is shorter stays as it is.

    Returns:
        (min(H, cells), min(W, cells)) float16, between 0 and 1.
    """
    height, width = saliency.shape
    places = (rankdata(saliency.ravel()) - 0.5) / saliency.size
    pooled = F.adaptive_avg_pool2d(
        torch.from_numpy(places.reshape(1, height, width)), (min(height, cells), min(width, cells))
    )
    return pooled[0].numpy().astype(np.float16)
