"""Step 4: the downstream classifier on real and synthetic images (paper sec. 3.3, Eq. 1). Plain PyTorch, no Ray.

`loss` is Equation 1, `trainer` one training by it, `data` its pixels, `results` its rows and the choice of the best.
"""
