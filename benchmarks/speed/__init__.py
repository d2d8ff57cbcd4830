"""How fast? Updates, policy steps, replay and the whole loop, beside a peer where one is given.

    python -m benchmarks.speed --help

The parent process never imports JAX. Each contender runs in a worker process of its own, compiles once, and
then times what it is asked for, so that contenders can be interleaved and only one works at a time.
"""
