"""A driving world of its own: a town, traffic, sensors, and the nuScenes-format log they leave. Knows nothing of learning."""
