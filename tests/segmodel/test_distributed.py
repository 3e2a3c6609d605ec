"""Training by several processes: the loss curve and the model of one; run as a script, this file is one of them."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from segmodel import (
    BaselineSettings,
    FineTuneSettings,
    ImageRegressors,
    LinearShapes,
    PartLayout,
    RegressorSettings,
    SegmentModel,
    VaeSettings,
    fine_tune,
    train_baseline,
    train_image_regressors,
    train_segment_vaes,
)
from segmodel._distributed import Workers

# 216 training faces in batches of 43: five whole ones, and one face of which the second process gets nothing
UNEVEN = VaeSettings(init="random", rest_dim=4, part_dim=3, epochs=3, batch=43, lr=1e-3, seed=5)
# 48 training faces, soon learned by heart: not every region keeps its last epoch
PATIENT = replace(UNEVEN, epochs=20, batch=16, lr=6e-3, validation_fraction=0.8, patience=2, smoothness="absolute")
LONGER = replace(UNEVEN, epochs=4)
REGRESSORS = RegressorSettings(epochs=4, batch=43, dropout=0.2, patience=2)
# 12 photos are held out: two batches to validate, and one photo of which the second process gets nothing
TUNING = FineTuneSettings(epochs=3, batch=11, lr=1e-3, encoder_lr=1e-3, encoding_noise=0.1, min_mask_px=0)
COUNT = 2
DOCUMENT = Path(__file__).parents[2] / "docs" / "scaling_training.md"


class Stopped(Exception):
    """What ends a training, or a process, in the middle."""


def stop_after_two(epoch, loss):
    if epoch == 2:
        raise Stopped


def read_face(path):
    face = np.load(path)
    layout = PartLayout.from_labels(face["labels"], face["faces"], face["mean"])
    return layout, LinearShapes(face["mean"], face["basis"], face["coefficients"])


def train(face, settings, **arguments):
    """What a training comes to, in what ``torch.save`` can keep: weights, curves, kept epochs, and epochs told of."""
    told = []
    model, report = train_segment_vaes(*face, settings, on_epoch=lambda epoch, loss: told.append(epoch), **arguments)
    epochs = {region: quality.epoch for region, quality in report.regions.items()}
    return {
        "weights": model.state_dict(),
        "history": report.history,
        "held_out_mm": report.held_out_mm,
        "epochs": epochs,
        "told": told,
    }


class Encoder(nn.Module):
    """Something to train that shows its photos in another light each time, and has weights that nothing reaches."""

    def __init__(self, photos):
        super().__init__()
        torch.manual_seed(1)
        self.photos, self.light = photos, torch.Generator().manual_seed(3)
        self.linear, self.idle = nn.Linear(photos.shape[1], 24), nn.Linear(2, 2)

    def forward(self, rows):
        return self.linear(self.photos[rows])

    def augmented(self, rows, own):
        light = 1 + 0.1 * torch.randn(len(rows), 1, generator=self.light)
        return self.linear((light * self.photos[rows])[own])


def shadows(vertices, rows):
    """What stands for a picture: smooth in where each vertex is, 8 x 8 pixels, five channels."""
    wave = torch.sin(vertices[:, ::7, :2] / 9).flatten(1)
    return 0.5 + 0.4 * wave[:, : 8 * 8 * 5].reshape(-1, 8, 8, 5)


def regress_and_tune(face):
    """What regressors and fine-tuning come to, for part models and for a whole-face model."""
    layout, shapes = face
    parts, _ = train_segment_vaes(layout, shapes, replace(UNEVEN, init="pca", epochs=1))
    whole, _ = train_baseline("global-pca", layout, shapes, BaselineSettings(rest_dim=4, part_dim=2))
    photos = torch.tanh(shapes.coefficients[:120] / 2)
    few = LinearShapes(shapes.mean, shapes.basis, shapes.coefficients[:120])
    masks = torch.cat([shadows(few.vertices(range(i, i + 40)), None) for i in (0, 40, 80)])
    held_out, results = np.arange(0, 120, 10), {}
    for name, model in (("parts", parts), ("whole", whole)):
        encoder = Encoder(photos)
        encodings = encoder(np.arange(120))
        regressors, report = train_image_regressors(model, encodings, few, REGRESSORS, held_out)
        epochs = {piece: quality.epoch for piece, quality in report.regions.items()}
        errors = [quality.rms_mm for quality in report.regions.values()]
        weights = {key: tensor.clone() for key, tensor in regressors.state_dict().items()}
        results[f"{name} regressed"] = {"curve": report.history + errors, "epochs": epochs, "weights": weights}
        tuned = fine_tune(
            model, regressors, encoder, few, shadows, masks, None, TUNING, held_out, augmented=encoder.augmented
        )
        curve = [entry[term] for entry in tuned.history for term in ("total", "shape", "parts", "kl")]
        trained = {
            f"{i}.{key}": t for i, m in enumerate((regressors, encoder, model)) for key, t in m.state_dict().items()
        }
        results[f"{name} tuned"] = {
            "curve": [tuned.lambda_parts, *curve], "epochs": tuned.best_epoch, "weights": trained
        }  # fmt: skip
    return results


def refusal(train, *arguments, **named):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is looked at by the test
        train(*arguments, **named)
    return str(error.value)


def refused_regressions(face, rank):
    """What is refused by regressors and fine-tuning when processes disagree or are too many."""
    layout, shapes = face
    model, _ = train_baseline("global-pca", layout, shapes, BaselineSettings(rest_dim=4, part_dim=2))
    encodings = torch.zeros(len(shapes), 4)
    regressors = ImageRegressors(4, model.latent_dims)
    tune = (model, regressors, lambda rows: encodings[rows], shapes, shadows, torch.zeros(len(shapes), 8, 8, 5), None)
    return {
        "too many regressors": refusal(
            train_image_regressors, model, encodings, shapes, RegressorSettings(batch=1)
        ),
        "regressors not agreed": refusal(
            train_image_regressors, model, encodings, shapes, RegressorSettings(lr=1e-3 * (1 + rank))
        ),
        "too many to tune": refusal(fine_tune, *tune, FineTuneSettings(batch=1)),
        "tuning not agreed": refusal(fine_tune, *tune, FineTuneSettings(batch=4 + rank)),
    }  # fmt: skip


def be_a_worker(rank, folder):
    """Everything the tests below want of two processes, in one go; ends as a process that fails in mid-training."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=COUNT)
    face = read_face(folder / "face.npz")
    results = {
        "uneven": train(face, UNEVEN, checkpoint=folder / f"uneven-{rank}.pt"),
        "patient": train(face, PATIENT),
        "resumed": train(face, LONGER, checkpoint=folder / "by_one.pt"),
        "too many": refusal(train_segment_vaes, *face, replace(UNEVEN, batch=1)),
        "not agreed": refusal(train_segment_vaes, *face, replace(UNEVEN, seed=rank)),
        "other": refusal(train_segment_vaes, *face, UNEVEN, checkpoint=folder / "by_one.pt"),
        **regress_and_tune(face),
        **refused_regressions(face, rank),
    }
    torch.save(results, folder / f"results-{rank}.pt")
    train_segment_vaes(*face, LONGER, on_epoch=stop_after_two, checkpoint=folder / "by_two.pt")


@pytest.fixture(scope="module")
def face_file(face, tmp_path_factory):
    path = tmp_path_factory.mktemp("distributed") / "face.npz"
    coefficients = face.sample(240, seed=2).coefficients
    np.savez(path, labels=face.labels, faces=face.faces, mean=face.mean, basis=face.basis, coefficients=coefficients)
    return path


@pytest.fixture(scope="module")
def alone(face_file):
    return read_face(face_file)


@pytest.fixture(scope="module")
def workers(alone, face_file):
    """The results of both processes, by rank, and the words each of them ended with."""
    folder = face_file.parent
    with pytest.raises(Stopped):
        train_segment_vaes(*alone, LONGER, on_epoch=stop_after_two, checkpoint=folder / "by_one.pt")
    started = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(folder)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(COUNT)
    ]
    try:
        words = [process.communicate(timeout=120)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert all((folder / f"results-{rank}.pt").is_file() for rank in range(COUNT)), "\n".join(words)
    return [torch.load(folder / f"results-{rank}.pt") for rank in range(COUNT)], words


def assert_close(result, expected, tolerance=1e-5):
    assert result["history"] == pytest.approx(expected["history"], rel=tolerance)
    assert result["epochs"] == expected["epochs"]
    for region, curve in expected["held_out_mm"].items():
        assert result["held_out_mm"][region] == pytest.approx(curve, rel=tolerance)
    for name, tensor in expected["weights"].items():
        torch.testing.assert_close(result["weights"][name], tensor, rtol=tolerance, atol=tolerance)


def test_two_processes_train_what_one_does_also_where_rows_do_not_go_round(alone, workers):
    assert_close(workers[0][0]["uneven"], train(alone, UNEVEN))


def test_two_processes_keep_the_best_epoch_of_each_region_as_one_does(alone, workers):
    expected = train(alone, PATIENT)
    assert len(set(expected["epochs"].values())) > 1
    assert_close(workers[0][0]["patient"], expected, tolerance=1e-3)  # rounding errors grow over 60 steps of Adam


@pytest.fixture(scope="module")
def regressed_alone(alone):
    return regress_and_tune(alone)


@pytest.mark.parametrize("job", [f"{model} {step}" for model in ("parts", "whole") for step in ("regressed", "tuned")])
def test_two_processes_regress_and_tune_as_one_does(regressed_alone, workers, job):
    expected, (first, second) = regressed_alone[job], (results[job] for results in workers[0])
    assert first["curve"] == pytest.approx(expected["curve"], rel=2e-6)
    assert first["epochs"] == second["epochs"] == expected["epochs"]
    assert first["curve"] == second["curve"]
    for name, tensor in expected["weights"].items():
        torch.testing.assert_close(first["weights"][name], tensor, rtol=1e-4, atol=2e-5)
        assert torch.equal(first["weights"][name], second["weights"][name]), name


@pytest.mark.parametrize("job", ["uneven", "patient", "resumed"])
def test_every_process_gets_the_same_model_and_the_first_reports(workers, job):
    first, second = (results[job] for results in workers[0])
    assert all(torch.equal(tensor, second["weights"][name]) for name, tensor in first["weights"].items())
    assert all(first[name] == second[name] for name in ("history", "held_out_mm", "epochs"))
    assert first["told"] == {"uneven": [1, 2, 3], "patient": list(range(1, 21)), "resumed": [3, 4]}[job]
    assert second["told"] == []


def test_only_the_first_process_writes_a_checkpoint(workers, face_file):
    assert (face_file.parent / "uneven-0.pt").is_file()
    assert not (face_file.parent / "uneven-1.pt").exists()


def test_a_checkpoint_goes_on_with_another_number_of_processes(alone, workers, face_file):
    whole = train(alone, LONGER)
    assert_close(workers[0][0]["resumed"], whole)
    by_two = train(alone, LONGER, checkpoint=face_file.parent / "by_two.pt")
    assert by_two["told"] == [3, 4]
    assert_close(by_two, whole)


def test_a_process_that_fails_does_not_leave_the_other_waiting(workers):
    first, second = workers[1]
    assert "Stopped" in first
    assert "RuntimeError" in second


@pytest.mark.parametrize(
    ("job", "messages"),
    [
        ("too many", ["2 processes share batches of 1 faces: start at most 1 or enlarge batch"] * 2),
        (
            "not agreed",
            [
                "process 1 does not train what process 0 does (seed is 1 there and 0 here; the faces or the held-out",
                "process 0 does not train what process 1 does (seed is 0 there and 1 here; the faces or the held-out",
            ],
        ),
        ("too many regressors", ["2 processes share batches of 1 faces"] * 2),
        ("regressors not agreed", ["(lr is 0.002 there and 0.001 here)", "(lr is 0.001 there and 0.002 here)"]),
        ("too many to tune", ["2 processes share batches of 1 faces"] * 2),
        ("tuning not agreed", ["(batch is 5 there and 4 here)", "(batch is 4 there and 5 here)"]),
        ("other", ["by_one.pt is the checkpoint of another training (epochs is 4 there and 3 here)"] * 2),
    ],
)
def test_what_is_refused_is_refused_by_every_process(workers, job, messages):
    for results, message in zip(workers[0], messages, strict=True):
        assert message in results[job]


@pytest.mark.parametrize(("rows", "count"), [(64, 1), (64, 3), (2, 3), (1, 4)])
def test_the_parts_of_a_batch_are_all_of_it_once(rows, count):
    parts = [Workers(rank, count).part_of(rows) for rank in range(count)]
    assert [row for own, share in parts if share for row in range(rows)[own]] == list(range(rows))
    assert sum(share for _, share in parts) == pytest.approx(1)
    for own, share in parts:
        assert len(range(rows)[own]) == max(1, round(share * rows))


def test_the_script_of_the_manual_runs_under_torchrun(alone, face_file, tmp_path):
    script = DOCUMENT.read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "train_parts.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    finished = subprocess.run(
        [*command, "train_parts.py", str(face_file)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr
    model = SegmentModel.load(tmp_path / "model")
    assert model.training_record["training_faces"] == 216
    assert (tmp_path / "training.pt").is_file()


if __name__ == "__main__":
    be_a_worker(int(sys.argv[1]), Path(sys.argv[2]))
