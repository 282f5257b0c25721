"""How well networks recognise actions early."""
