"""The machine's matmul rate: two 2048 x 2048 matrices into float32, by XLA. Argument: float32 or bfloat16."""

import functools
import json
import statistics
import sys
import time

import jax
import jax.numpy as jnp

SIZE, NUM_MATMULS = 2048, 4  # this many matmuls are dispatched at once


def main() -> None:
    a = jax.random.normal(jax.random.key(0), (SIZE, SIZE)).astype(sys.argv[1])
    matmul = jax.jit(functools.partial(jnp.matmul, preferred_element_type=jnp.float32))
    matmul(a, a).block_until_ready()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready([matmul(a, a) for _ in range(NUM_MATMULS)])
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"flops_per_second": NUM_MATMULS * 2 * SIZE**3 / statistics.median(seconds)}))


if __name__ == "__main__":
    main()
