"""Side-by-side benchmarks; the pipeline never imports them."""
