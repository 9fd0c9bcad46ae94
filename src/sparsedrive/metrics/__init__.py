"""Metrics of the five tasks, in NumPy and SciPy: detection, tracking, map, forecasting and planning. Each module opens with its definition."""
