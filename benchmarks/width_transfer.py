"""Does the best learning rate of a narrow model hold for a wide one? Validation loss by width and rate.

    python benchmarks/width_transfer.py TOKENS_FOLDER [--kind adamw] [--rules off] [--widths 64 128 256 512]

TOKENS_FOLDER is what the stage `tokens` writes. Models of equal depth are trained from scratch on the same
rows with the default rates times each of `--factors`; all widths get the same number of steps. With the rules
of `bessemer.model.width` (base width: the second of `--widths`) the best factor should be the same for all
widths; without them (`--rules off`) it falls as the width grows, for AdamW as 1 / width (Yang et al. 2022,
"Tensor Programs V", figure 1). Printed last: per width, the best factor, and what the factor that is best at
the base width costs there in nats.
"""

import argparse
import json
from pathlib import Path

from cpu_kernels import describe_machine
from peers import Shape
from pretrain_throughput import CPU
from time_to_loss import Corpus, train_ours

from bessemer.model.precision import resolve_dtype
from bessemer.training.optimizers import OptimizerConfig

HEAD_DIM = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=("muon", "adamw"), default="muon")
    parser.add_argument("--rules", choices=("on", "off"), default="on")
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--factors", type=float, nargs="+", default=[0.25, 0.5, 1, 2, 4])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    base, rates, dtype = options.widths[1], OptimizerConfig(), resolve_dtype("auto", CPU)
    losses: dict[int, dict[float, float]] = {}
    for width in options.widths:
        shape = Shape(
            str(width), options.layers, width, max(1, width // HEAD_DIM), options.vocabulary, 8, 256
        )
        corpus, losses[width] = Corpus(options.folder, shape, seed=1), {}
        for factor in options.factors:
            config = OptimizerConfig(
                kind=options.kind,
                learning_rate=rates.learning_rate * factor,
                muon_learning_rate=rates.muon_learning_rate * factor,
                base_width=base if options.rules == "on" else None,
            )
            losses[width][factor] = train_ours(corpus, options.steps, 1, dtype, config)[1]
        row = "  ".join(f"{factor:g}: {loss:.4f}" for factor, loss in losses[width].items())
        print(f"width {width:5}  {row}", flush=True)
    best = {width: min(of_width, key=of_width.__getitem__) for width, of_width in losses.items()}
    cost = {width: losses[width][best[base]] - losses[width][best[width]] for width in losses}
    result = {
        "name": f"width_transfer {options.kind}, rules {options.rules}",
        "unit": "nats lost by taking the base width's best rate",
        "ours": round(max(cost.values()), 4),
        "best_factor": best,
        "cost": {width: round(value, 4) for width, value in cost.items()},
        "tokens": options.steps * 2048,
        "machine": describe_machine(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
