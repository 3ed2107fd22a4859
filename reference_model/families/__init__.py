"""Published models, one family a file: what their settings mean, and where their weights lie."""
