"""BOB: contextual synthetic data for fine-grained classification, as batch jobs on Ray.

The paper's steps, and where each lives:

    1  caption    bob/steps/caption.py   bob/captioners/   a VLM reads each photo's background and pose
    2  fine-tune  bob/steps/finetune.py  bob/diffusion/    LoRA on (class, background, pose) prompts
    3  generate   bob/steps/generate.py  bob/methods/      each class in contexts of the whole data set
    4  classify   bob/steps/classify.py  bob/classifier/   sweep and final training, real + synthetic images
    5  tabulate   bob/paper/tabulate.py  bob/paper/        the tables: ours | paper | difference

A file of `bob/steps/` holds a step's work units and their worker. Equation 1 is `bob/classifier/loss.py`, the training
loop around it `bob/classifier/trainer.py`, the networks are in `bob/backbones/`. `bob/paper/experiments.py` lists the
paper's experiments; `bob/pipeline/walk.py` names the units of each step in order, `bob/pipeline/execute.py` does those
that are missing, inline or on Ray (`bob/cluster/`). `bob/store/` reads and writes artefacts, `bob/datasets/` opens
pictures, `bob/core/` holds the types and settings that all share. `bob/commands/` has one file per command of
`bob/cli.py`. `bob/skyworld/` trains the mini models with which a laptop runs everything. Importing this package
imports nothing else.
"""
