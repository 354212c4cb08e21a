"""Which kernels `scaled_dot_product_attention` runs on.

The model calls it plainly everywhere; here the process is told what to prefer. Nothing is required: without a GPU, or
without an extra package, attention stays what torch brings, and the results on a CPU are the same bit for bit.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, activate_flash_attention_impl, list_flash_attention_impls, sdpa_kernel
from transformers.utils import logging


logger = logging.get_logger(__name__)

# By major compute capability: FA3 is made for Hopper, FA4 for Hopper and Blackwell.
IMPLEMENTATIONS = {9: ("FA3", "FA4"), 10: ("FA4",)}
# MATH last: a list in which no backend fits is an error, and MATH always fits.
PRIORITY = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
)


def enable_fast_attention() -> str:
    """Makes torch's attention use FlashAttention 3 or 4 where the GPU and the installed packages allow it.

    It holds for the whole process; `torch.nn.attention.restore_flash_attention_impl()` takes it back. Says in the log
    what is used.

    Returns:
        `FA3` or `FA4`; `SDPA` where torch's own kernels are left in place.
    """
    chosen, reason = "SDPA", "no GPU"
    if torch.cuda.is_available():
        capability = torch.cuda.get_device_capability()
        fitting = [name for name in IMPLEMENTATIONS.get(capability[0], ()) if name in list_flash_attention_impls()]
        reason = "" if fitting else f"none is made for compute capability {capability[0]}.{capability[1]}"
        for name in fitting:
            try:
                activate_flash_attention_impl(name)
            # Whatever a prototype kernel's import or registration raises, the built-in kernels still work.
            except Exception as error:
                reason += f"{name}: {error}; "
            else:
                chosen = name
                break
    logger.info(f"Attention runs on {chosen}" + (f" ({reason.rstrip('; ')})" if chosen == "SDPA" else "") + ".")
    return chosen


@contextmanager
def fast_attention(enabled: bool = True) -> Iterator[None]:
    """Encloses a run: `enable_fast_attention`, and on a GPU the kernels of `PRIORITY` in their order.

    It is not meant for single calls: entering it costs as long as a small attention. On a CPU nothing is touched.

    Args:
        enabled: False leaves everything as it is.
    """
    if enabled:
        enable_fast_attention()
    if not enabled or not torch.cuda.is_available():
        yield
        return
    with sdpa_kernel(list(PRIORITY), set_priority=True):
        yield
