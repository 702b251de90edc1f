"""Stable Diffusion as the methods use it: loading, LoRA, drawing. Plain diffusers and PyTorch."""
