import http.client
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from editing import FaceEditor, FaceState
from editing.app import EditableFaces, serve_editor


@pytest.fixture
def faces(face, decoder, controllers, points):
    state = FaceState.create(controllers.base_latents())
    return EditableFaces(lambda _: FaceEditor(state, decoder, controllers, points), face.faces, face.labels)


@pytest.fixture
def server(faces):
    pytest.importorskip("viser", reason="needs viser")
    with serve_editor(faces, port=0) as server:
        yield server


def status(server, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/", headers=headers)
    return connection.getresponse().status


def test_the_page_is_served_on_this_machine_only(server, capsys):
    assert status(server) == 200
    assert server.url == f"http://127.0.0.1:{server.port}"
    assert server._server.get_host() == "127.0.0.1"
    assert server.tabs == ()
    assert capsys.readouterr() == ("", "")


def test_other_web_pages_cannot_talk_to_it(server):
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    upgrade["Sec-WebSocket-Key"] = "AAAAAAAAAAAAAAAAAAAAAA=="
    assert status(server, Origin=server.url, **upgrade) == 101
    assert status(server, Origin="https://example.org", **upgrade) == 403
    assert status(server, Host=f"example.org:{server.port}") == 403
    assert status(server, Host=f"localhost:{server.port}") == 200


def test_nobody_can_ask_for_a_share_tunnel(server):
    assert server._server.request_share_url() is None
    assert server._server._share_tunnel is None


def test_a_taken_port_gives_way_to_the_next(server, faces):
    with serve_editor(faces, port=server.port) as other:
        assert other.port > server.port
        assert status(other) == 200


def test_stopping_frees_the_port(server):
    server.stop()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", server.port))
    server.wait()


def test_listening_elsewhere_is_said_in_one_line(faces, capsys):
    pytest.importorskip("viser", reason="needs viser")
    with serve_editor(faces, host="0.0.0.0", port=0) as server:
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert status(server, Host=f"example.org:{server.port}") == 200
    warning = capsys.readouterr().err
    assert warning.startswith("warning: the editor listens on 0.0.0.0:")
    assert warning.count("\n") == 1


def test_a_face_that_cannot_be_opened_is_refused_before_anything_is_served(faces):
    pytest.importorskip("viser", reason="needs viser")

    def refuse(_):
        raise ValueError("latents of nose have length 3")

    with pytest.raises(ValueError, match="latents of nose"):
        serve_editor(replace(faces, open=refuse), port=0)


def test_serving_without_viser_names_the_extra(faces, monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    monkeypatch.delitem(sys.modules, "editing.app.private_server", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'neo3df-editing\[app\]'"):
        serve_editor(faces)


def test_the_package_is_imported_without_viser():
    code = "import editing, sys; sys.exit('viser' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
