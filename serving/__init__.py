"""One predictor, and the places that serve it."""
