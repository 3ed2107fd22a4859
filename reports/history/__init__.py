"""The history across commits, from asv's own results."""
