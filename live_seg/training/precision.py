"""Choice of the dtype policy for training."""

import keras

BFLOAT16_CAPABILITY = (8, 0)
"""Lowest compute capability of NVIDIA GPUs whose tensor cores support bfloat16 (Ampere)."""


def best_precision() -> str:
    """Return a Keras dtype policy: mixed_bfloat16 on GPUs that support it in hardware, else float32.

    bfloat16 has the range of float32, so losses need no scaling.
    """
    return "mixed_bfloat16" if _capability() >= BFLOAT16_CAPABILITY else "float32"


def _capability() -> tuple[int, ...]:
    """Return the compute capability of the first GPU, () without one."""
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
