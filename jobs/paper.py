"""All tables of the paper in one pipeline, which makes shared captions, adapters and images once.

Cluster:  ray job submit --address http://127.0.0.1:8265 --working-dir . \\
              -- python jobs/paper.py --seeds 0 1 2 --out s3://bucket/bob
Laptop:   python jobs/classify.py smoke_paper --out out     the same on skyworld, with tiny budgets, as a check
Flags:    python jobs/paper.py --help; those of `bob run`, without the experiment's name.

Reads:    the paper's data sets and weights: `bob doctor` lists those present, and sources of the others.
Writes:   the outputs of the other jobs, and for each of the paper's tables ours next to the printed numbers.
Resume:   the same command. Parts of it may be run before, by the other jobs with `table1`, `table2` ... .
Cost:     some 210,000 images for BOB alone, and 300 GPU hours and more for the classifiers of Table 1 (estimated).
          --resources.*.most limits the nodes asked of the autoscaler.
Exit:     0 done, 1 a fault of ours, 2 a mistake in one sentence, 143 stopped by `ray job stop`.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder: its tabulate.py would hide a library
    from bob import cli

    cli.main(["run", "paper", *sys.argv[1:]])
