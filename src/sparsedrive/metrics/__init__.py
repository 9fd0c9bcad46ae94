"""Metrics of the five tasks in NumPy and SciPy: detection, tracking, map, forecasting, planning. Each module opens with its definition."""
