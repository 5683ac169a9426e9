"""The machine's own rate: a product of two 2048 x 2048 matrices, by XLA. The word after it: f32 or bf16."""

import json
import statistics
import sys
import time

import jax
import jax.numpy as jnp

SIDE = 2048


def main():
    dtype = {"f32": jnp.float32, "bf16": jnp.bfloat16}[sys.argv[1]]
    a = jax.random.normal(jax.random.key(0), (SIDE, SIDE)).astype(dtype)
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    seconds = []
    for _ in range(9):
        start = time.perf_counter()
        product(a, a).block_until_ready()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"operations_per_second": 2 * SIDE**3 / statistics.median(seconds)}))


if __name__ == "__main__":
    main()
