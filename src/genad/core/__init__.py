"""The contract, the loop, calibration and model files: what every method shares."""
