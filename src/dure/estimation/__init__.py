"""What methods share: formulas and design matrices, families, Newton steps, time grids."""
