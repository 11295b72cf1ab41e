"""How it is told: table, curves, pictures, and the page."""
