"""How often the gate is wrong: its designs compared, its pairs recorded and replayed, real runs."""
