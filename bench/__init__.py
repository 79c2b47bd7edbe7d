"""Measurements: accuracy, speed against peers."""
