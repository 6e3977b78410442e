"""Tiny-R1V (arXiv 2510.08987) on Ray: length-aware reinforcement learning and adaptive model merging."""
