"""Which numbers a network learns with on the machine at hand."""

import keras

WITH_BFLOAT16 = (8, 0)
"""The first compute capability of NVIDIA GPUs whose tensor cores take bfloat16 (Ampere)."""


def best_precision() -> str:
    """Name a Keras dtype policy: mixed_bfloat16 on GPUs that are fast at it, else float32.

    It has the range of float32, so that losses need no scaling.
    """
    return "mixed_bfloat16" if _capability() >= WITH_BFLOAT16 else "float32"


def _capability() -> tuple[int, ...]:
    """The compute capability of the first GPU, () without one."""
    if keras.backend.backend() == "jax":
        import jax

        return tuple(map(int, str(getattr(jax.devices()[0], "compute_capability", "")).split(".")[:2] or ()))
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return (
        tuple(tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", ()))
        if gpus
        else ()
    )
