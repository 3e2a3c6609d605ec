"""transfer_labels: part labels of the vertices by votes of the training masks."""

import numpy as np

from dataset_builder import eye_cap_vertices, label_agreement, label_report, load_face_model, transfer_labels

from ..metrics import MetricRows
from ..pipeline import StageContext
from ..run_data import load_faces, masked_training_faces
from ..tables import write_table


def run(context: StageContext) -> None:
    """Vote, clean up, compare with known labels where the face model has them, and write the topology's vertices."""
    folder = context.inputs["build_dataset"]
    model = load_face_model(folder / "face_model.npz")
    voters = masked_training_faces(load_faces(folder))
    masks, ignore = voters.masks()
    restrict = {"eyes": eye_cap_vertices(model)} if model.name == "ict" else None
    found = transfer_labels(
        model, masks, voters.estimate, ignore=ignore, restrict=restrict, calibrate=context.config.labels.calibrate
    )
    write_table(
        context.out / "topology_vertices.parquet",
        "topology_vertices",
        {"template": model.mean, "label": found.labels, "confidence": found.confidence, "ballots": found.ballots},
        topology_hash=model.topology_hash(),
        producer="dataset_builder",
    )
    metrics = MetricRows()
    truth = label_agreement(found.labels, model.labels) if model.labels is not None else {}
    for region, counted in label_report(model, found).items():
        for name in ("vertices", "area_mm2", "confidence", "unsure", "unseen", "asymmetry", "pieces"):
            if not np.isnan(value := float(getattr(counted, name))):
                metrics.add("votes", region, name, value, len(voters))
        if region in truth:
            metrics.add("votes", region, "vertex_iou", truth[region], len(voters))
    metrics.write(context.out)
