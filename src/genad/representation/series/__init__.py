"""Language models on time series: numbers as text, their likelihood, and what a model says of them."""
