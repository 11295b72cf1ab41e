"""report.html of a comparison: `page` fills page.html and page.css."""
