"""Stable Diffusion as the methods use it: checkpoints, LoRA, textual inversion, training, sampling, CLIP filter."""
