"""The default detectors: members of several families that judge together."""
