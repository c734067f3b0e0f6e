"""The glue to Hugging Face: the callback for any Trainer, and the engine behind `raptr train`."""

from raptr.train.callback import ProgressiveCallback

__all__ = ["ProgressiveCallback"]
