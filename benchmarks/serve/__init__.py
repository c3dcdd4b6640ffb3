"""Throughput, latency and memory of `deep-prompt serve`, beside three other ways to serve."""
