"""Fixed shares of a sequence of draws: met exactly in every block, and evenly within it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from raptr.plan import rng


def quotas_of(shares: Sequence[float], block: int) -> tuple[int, ...]:
    """How many of ``block`` draws each share is: rounded, at least 1 of a share above 0, ``block`` in all.

    Example:
        >>> quotas_of([0.6, 0.2, 0.2], 16)
        (10, 3, 3)
    """
    given = np.array(shares)
    quotas = np.maximum(np.floor(given * block).astype(np.int64), given > 0)
    missing = block - int(quotas.sum())  # goes to those that were rounded down most
    order_of_loss = np.argsort(quotas - given * block, kind="stable")
    quotas[order_of_loss[: max(0, missing)]] += 1
    return tuple(quotas.tolist())


def spread(
    quotas: tuple[int, ...], seed: int, purpose: int, block: int, row: int = 0
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint32]]:
    """Which kind every draw of a block is of, and how many of that kind came before it in the block.

    The n-th of the ``quotas[k]`` draws of kind k is put at the time (n + u) / quotas[k], with u drawn in [0, 1),
    and all are taken in the order of their times.

    Example:
        >>> kinds, before = spread((3, 1), seed=0, purpose=rng.DENOISERS, block=0)
        >>> sorted(kinds.tolist()), sorted(before[kinds == 0].tolist())
        ([0, 0, 0, 1], [0, 1, 2])
    """
    times = [
        (np.arange(quota) + rng.uniforms(rng.words(seed, purpose, (block, kind, row), quota))) / max(1, quota)
        for kind, quota in enumerate(quotas)
    ]
    taken = np.argsort(np.concatenate(times), kind="stable")
    kinds = np.repeat(np.arange(len(quotas), dtype=np.uint16), quotas)
    before = np.concatenate([np.arange(quota, dtype=np.uint32) for quota in quotas])
    return kinds[taken], before[taken]
