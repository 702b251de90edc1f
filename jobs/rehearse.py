"""Measures what an experiment costs on a node of the cluster before it runs: a few batches of each step and model.

Cluster:  ray job submit --address http://127.0.0.1:8265 --working-dir . --entrypoint-num-gpus 1 \\
              -- python jobs/rehearse.py table1 --out s3://bucket/bob
Laptop:   python jobs/rehearse.py skyworld --out out
Flags:    python jobs/rehearse.py --help; those of `bob rehearse`.

Reads:    the weights and data sets that the node has; random weights and noise stand in for the others.
Writes:   rehearsal/, which `bob plan table1 --cluster 8xH100 --measured s3://bucket/bob` reads and no run does.
Resume:   the same command measures everything again.
Cost:     minutes of one GPU; --entrypoint-num-gpus 1 chooses a node that has one.
Exit:     0 done, 1 a fault of ours, 2 a mistake in one sentence or nothing measured, 143 stopped by `ray job stop`.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder: its tabulate.py would hide a library
    from bob import cli

    cli.main(["rehearse", *sys.argv[1:]])
