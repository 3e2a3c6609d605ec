"""Which vertices are the nose? Let the masks of photographs vote on a mesh whose parts are unknown.

Synthetic photographs, whose masks and truth are known; the faces in them are found by their landmarks, with a pixel of
noise, as with real ones.
"""

import numpy as np

from dataset_builder import LandmarkEstimator, label_agreement, load_face_model, make_photos, transfer_labels

model = load_face_model("synthetic-3k")
photos = list(make_photos(model, 16, seed=1))
noise = np.random.default_rng(0).normal(size=(len(photos), 68, 2))
landmarks = np.stack([photo.landmarks for photo in photos]) + noise
masks = np.stack([photo.mask for photo in photos])

estimate = LandmarkEstimator(model).estimate(landmarks)
print(f"{len(photos)} faces found, landmarks {np.median(estimate.residual):.1f} px from their place")

parts = transfer_labels(model, masks, estimate, borders="edges")  # this mesh has edges along its parts' outlines
truth = label_agreement(parts.labels, model.labels)
for part, count in parts.counts.items():
    print(f"{part:10} {count:4} vertices, mask {parts.target_area[part]:5.0f} px, IoU with the truth {truth[part]:.2f}")
