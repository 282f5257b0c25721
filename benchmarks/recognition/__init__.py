"""How well networks recognize actions early."""
