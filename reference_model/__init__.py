"""A small GPT-2 in which every design choice is one field of its configuration."""
