"""Detection power: right files broken on purpose, and how many of them `verify` finds.

`python -m benchmarks power` exports the examples and a few small models, breaks their graphs in hundreds of ways,
and runs `hybridjit.verify` on each, beside the check that `torch.jit.trace` makes by itself.
"""

from .run import run as run
