"""report.html of an evaluation: `page` builds it from page.html, page.css and page.js, which draws the grids."""
