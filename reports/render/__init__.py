"""results.json -> index.html: formats, charts and templates."""
