"""Published models: what their settings mean, and where their weights lie."""
