"""Measure faces, edit them by named controls, and write the meshes.

Faces are ``(V, 3)`` vertices in mm of one labelled topology, +x to the subject's left, +y up, +z to the front. This
package knows no network: a decoder is passed in.
"""

from editing.app import EditableFaces, EditorServer, serve_editor
from editing.catalogue import CONTROLLERS, CONTROLLERS_BY_REGION, Controller, controller_names
from editing.colours import PART_COLOURS, part_colours
from editing.controllers import ControllerMap, RegionMap
from editing.decoder import FaceDecoder
from editing.editor import FaceEditor
from editing.expressions import expression_morphs, expression_name
from editing.glb import export_glb
from editing.landmarks import MeasurementLandmarks
from editing.layout import roomy_uv
from editing.measurements import measure, measurement_values
from editing.morphs import ControlMorphs, control_morphs
from editing.obj import export_obj
from editing.orthogonal import latent_lengths, orthogonalised
from editing.parts import LABEL_IDS, PARTS, REGIONS, face_labels
from editing.ply import export_ply
from editing.response import ResponseMatrix, response
from editing.state import FaceState
from editing.stl import export_stl
from editing.texture import Sight, TexelMap, bake_texture, fill_colours, sample_photo, without_strangers

__all__ = [
    "CONTROLLERS",
    "CONTROLLERS_BY_REGION",
    "LABEL_IDS",
    "PARTS",
    "PART_COLOURS",
    "REGIONS",
    "ControlMorphs",
    "Controller",
    "ControllerMap",
    "EditableFaces",
    "EditorServer",
    "FaceDecoder",
    "FaceEditor",
    "FaceState",
    "MeasurementLandmarks",
    "RegionMap",
    "ResponseMatrix",
    "Sight",
    "TexelMap",
    "bake_texture",
    "control_morphs",
    "controller_names",
    "export_glb",
    "export_obj",
    "export_ply",
    "export_stl",
    "expression_morphs",
    "expression_name",
    "face_labels",
    "fill_colours",
    "latent_lengths",
    "measure",
    "measurement_values",
    "orthogonalised",
    "part_colours",
    "response",
    "roomy_uv",
    "sample_photo",
    "serve_editor",
    "without_strangers",
]
