"""Quality of frame prediction under a small budget of training."""
