"""A small language model, GPT-2 by default, in which every design choice is one field."""
