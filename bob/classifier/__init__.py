"""Step 4: the downstream classifier on real and synthetic images (paper sec. 4.1, Eq. 1). Plain PyTorch, no Ray.

`loss` holds Equation 1, `trainer` trainings from start to end, `lockstep` their models and epochs, `batches` what all
points of a sweep see, `data` the images and labels, `pictures` these on the device, `pixel_cache` decoded images on
disk, `results` the choice of the best point and the results table, `embedder` feature extraction for the metrics.
"""
