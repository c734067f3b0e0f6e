"""The glue to Hugging Face: the callback for any Trainer, and the engine behind `raptr train`.

Reading order: ``engine`` (the loop, and one run from start to end), ``run`` (the context of all callbacks), ``task``
(data and costs), ``callbacks``. Folders: ``setup`` makes model and arguments from a config, ``hf`` is the subclass of
the Trainer, ``resume`` holds checkpoints and their checks.
"""

from raptr.train.callback import ProgressiveCallback

__all__ = ["ProgressiveCallback"]
