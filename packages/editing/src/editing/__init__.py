"""Measure faces, edit them by named controls, and write the meshes.

Faces are ``(V, 3)`` vertices in mm of one labelled topology, +x to the subject's left, +y up, +z to the front. Decoders
and seam blending are passed in as callables; this package knows no network.
"""

from editing.catalogue import CONTROLLERS, CONTROLLERS_BY_REGION, Controller, controller_names
from editing.colours import PART_COLOURS, part_colours
from editing.controllers import ControllerMap, RegionMap
from editing.editor import Blend, Decode, FaceEditor
from editing.glb import export_glb
from editing.landmarks import MeasurementLandmarks
from editing.measurements import measure, measurement_values
from editing.morphs import ControlMorphs, control_morphs
from editing.obj import export_obj
from editing.parts import LABEL_IDS, PARTS, REGIONS, face_labels
from editing.ply import export_ply
from editing.response import ResponseMatrix, response
from editing.state import FaceState

__all__ = [
    "CONTROLLERS",
    "CONTROLLERS_BY_REGION",
    "LABEL_IDS",
    "PARTS",
    "PART_COLOURS",
    "REGIONS",
    "Blend",
    "ControlMorphs",
    "Controller",
    "ControllerMap",
    "Decode",
    "FaceEditor",
    "FaceState",
    "MeasurementLandmarks",
    "RegionMap",
    "ResponseMatrix",
    "control_morphs",
    "controller_names",
    "export_glb",
    "export_obj",
    "export_ply",
    "face_labels",
    "measure",
    "measurement_values",
    "part_colours",
    "response",
]
