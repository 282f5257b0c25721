"""Complete tasks built from :mod:`tt_conv.layers`, and the ``tt-conv`` command."""
