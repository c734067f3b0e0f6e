"""Token stores -> training samples: sequences, mixtures, windows, batches."""
