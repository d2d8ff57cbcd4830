"""Speed and learning benchmarks, and the results they wrote."""
