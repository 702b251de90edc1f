"""Step 4: sweeps and trains the classifiers of an experiment on real and drawn images, and writes its table.

Cluster:  ray job submit --address http://127.0.0.1:8265 --working-dir . \\
              -- python jobs/classify.py skyworld --out s3://bucket/bob
Laptop:   python jobs/classify.py skyworld --out out
Flags:    python jobs/classify.py --help; those of `bob run`, without --upto.

Reads:    shots/, images/, the data set's pictures, the backbone's weights.
Writes:   results/ (every epoch of every training), tables/; missing results of steps 1 to 3 are made first.
Resume:   the same command. Finished trainings are not repeated.
Cost:     most of an experiment: 8 to 18 short trainings and a long one for each cell. Up to 16 share a GPU, as many
          as its memory holds; --resources.classify.gpus 0.5 gives each a half, 0 leaves it to the CPU nodes.
Exit:     0 done, 1 a fault of ours, 2 a mistake in one sentence, 143 stopped by `ray job stop`.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder: its tabulate.py would hide a library
    from bob import cli

    cli.main(["run", *sys.argv[1:], "--upto", "classify"])
