"""Evaluation of a model, or of saved predictions, on a prepared split: five tasks, every protocol named, one result file."""
