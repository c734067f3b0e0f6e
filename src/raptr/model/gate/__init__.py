"""The gate that skips a layer, or runs it in part."""
