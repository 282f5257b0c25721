"""An ordinary convolution's kernel as factors: formats, ranks, decompositions and their layer."""
