"""Folding square patches of a frame into its channels, for any number of spatial axes."""

from torch import Tensor


def fold_patches(x: Tensor, patch_size: int, dim: int) -> Tensor:
    """Fold patches into channels, in the order of :func:`torch.nn.functional.pixel_unshuffle`.

    ``[..., C, *S]`` becomes ``[..., C * patch_size**dim, *(S / patch_size)]``.
    """
    if patch_size == 1:
        return x
    lead, channels, spatial = x.shape[: -dim - 1], x.shape[-dim - 1], x.shape[-dim:]
    x = x.reshape(*lead, channels, *(n for s in spatial for n in (s // patch_size, patch_size)))
    first = len(lead) + 1
    grid, patch = range(first, first + 2 * dim, 2), range(first + 1, first + 2 * dim, 2)
    x = x.permute(*range(first), *patch, *grid)
    return x.reshape(*lead, channels * patch_size**dim, *(s // patch_size for s in spatial))


def unfold_patches(x: Tensor, patch_size: int, dim: int) -> Tensor:
    """Undo :func:`fold_patches`, as :func:`torch.nn.functional.pixel_shuffle` does in two dimensions."""
    if patch_size == 1:
        return x
    lead, channels, spatial = x.shape[: -dim - 1], x.shape[-dim - 1], x.shape[-dim:]
    x = x.reshape(*lead, channels // patch_size**dim, *(patch_size,) * dim, *spatial)
    first = len(lead) + 1
    interleaved = (axis for d in range(dim) for axis in (first + dim + d, first + d))
    x = x.permute(*range(first), *interleaved)
    return x.reshape(*lead, channels // patch_size**dim, *(s * patch_size for s in spatial))
