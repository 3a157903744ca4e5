"""The serving engine: fronts that speak HTTP, isolated workers that run models, and what stands between them."""
