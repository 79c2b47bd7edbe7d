"""What `lossfuncs bench` does: workloads, contestants, timing, the machine's roofs, comparison, pictures and the page."""
