"""The machine's own rate: products of two 2048 x 2048 matrices into float32, by XLA. The word after it: f32 or bf16."""

import functools
import json
import statistics
import sys
import time

import jax
import jax.numpy as jnp

SIDE, PRODUCTS = 2048, 4  # so many are asked for at once


def main():
    dtype = {"f32": jnp.float32, "bf16": jnp.bfloat16}[sys.argv[1]]
    a = jax.random.normal(jax.random.key(0), (SIDE, SIDE)).astype(dtype)
    product = jax.jit(functools.partial(jnp.matmul, preferred_element_type=jnp.float32))
    product(a, a).block_until_ready()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready([product(a, a) for _ in range(PRODUCTS)])
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"operations_per_second": PRODUCTS * 2 * SIDE**3 / statistics.median(seconds)}))


if __name__ == "__main__":
    main()
