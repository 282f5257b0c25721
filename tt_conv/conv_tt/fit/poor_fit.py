"""The warning of a decomposition that ended far from its kernel."""


class PoorFitWarning(UserWarning):
    """`conv_tt` ended with a large error, or did not reach the one that was asked for.

    The kernel may have no such structure (a randomly initialized one has none), or the rank is too low.

    Examples
    --------
    A kernel of random numbers has no low-rank structure:

    >>> import warnings, torch
    >>> from tt_conv import conv_tt
    >>> from tt_conv.conv_tt.fit import PoorFitWarning
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     tensor = conv_tt(torch.randn(6, 6, 2, 5), rank=1, order=2, kernel_size=3)
    >>> any(issubclass(warning.category, PoorFitWarning) for warning in caught)
    True
    """
