"""Networks trained elsewhere, behind small interfaces."""
