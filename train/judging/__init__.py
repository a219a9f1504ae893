"""What is measured: raters, contenders, tables, grids."""
