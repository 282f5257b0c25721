"""The parameters of the package's modules in the form that the oracle takes."""

from tt_conv import ConvTT


def conv_tt_parameters(layer: ConvTT) -> dict:
    return {
        "projections": list(layer.projections),
        "cores": list(layer.cores),
        "projection_biases": list(layer.projection_biases),
        "core_biases": list(layer.core_biases),
        "bias": layer.bias,
    }
