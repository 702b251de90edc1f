"""Step 2: fine-tunes the T2I checkpoint on the shots and their captions, once for all runs that share them.

Cluster:  ray job submit --address http://127.0.0.1:8265 --working-dir . \\
              -- python jobs/finetune.py skyworld --out s3://bucket/bob
Laptop:   python jobs/finetune.py skyworld --out out
Flags:    python jobs/finetune.py --help; those of `bob run`, without --upto.

Reads:    captions/, the data set's pictures, the checkpoint's weights.
Writes:   adapters/ (LoRA weights and new words as safetensors, for diffusers); missing captions are made first.
Resume:   the same command. An interrupted training continues from its last checkpoint, below scratch/train/.
Cost:     one GPU a training (--resources.finetune), on-demand nodes rather than spot: a lost node costs the time
          since the last checkpoint. The paper's recipe: 400 epochs of batch 80.
Exit:     0 done, 1 a fault of ours, 2 a mistake in one sentence, 143 stopped by `ray job stop`.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder: its tabulate.py would hide a library
    from bob import cli

    cli.main(["run", *sys.argv[1:], "--upto", "finetune"])
