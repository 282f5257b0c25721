"""How PyTorch is used; nothing in here knows of tensor networks."""
