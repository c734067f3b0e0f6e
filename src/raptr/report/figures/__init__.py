"""The figures: data to Vega-Lite. One chart serves the page (wide as its container) and the PNG (fixed width)."""
