"""Web pages before `pcae serve`: those of other origins are refused, unless `--allow-origin` names them."""

from __future__ import annotations

import json

import pytest
import services
from onnx_models import pixels
from services import JSON, LENGTH, assert_refused, picture, request

from pcae.cli import main as cli

PAGE = "https://page.example"
INFER = "/v2/models/small/infer"


@pytest.fixture(scope="module")
def client(folder):
    with services.serving(folder) as client:
        yield client


def good() -> tuple[bytes, dict[str, str]]:
    return services.binary_request(request(pixels(2), 0.7))


FOREIGN = ({"Origin": PAGE}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
           {"Origin": "http://localhost"}, {"Origin": "http://["}, {"Origin": ""})  # fmt: skip


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_pages_of_other_origins_are_refused(client, headers):
    """Also where they need not ask first, as with a form, which may hold a file, or without a Content-Type."""
    body = json.dumps(request(pixels(2), 0.7)).encode()
    form = b"--x\r\nContent-Disposition: form-data; name=image; filename=a.png\r\n\r\n" + picture() + b"\r\n--x--\r\n"
    sent = [
        (INFER, body, {}),
        (INFER, body, JSON),
        (INFER, *good()),
        ("/v2/models/small/versions/1/infer", body, {}),
        ("/predict", picture(), {}),
        ("/predict", form, {"Content-Type": "multipart/form-data; boundary=x"}),
    ]
    for path, data, own in sent:
        answer = client.ask("POST", path, data, own | headers)
        assert_refused(answer, 403, "a web page of another origin")
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert client.ask("OPTIONS", INFER, None, headers | {"Access-Control-Request-Method": "POST"}).status == 405


def test_pages_of_the_same_origin_and_clients_that_name_none_are_answered(client):
    for headers in (
        {"Origin": f"http://127.0.0.1:{client.port}"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": PAGE},  # behind a proxy
    ):
        body, header = good()
        assert client.post(body, header | headers).status == 200


def test_allowed_origins(folder):
    with services.serving(folder, "--allow-origin", PAGE, "--allow-origin", "http://localhost:3000") as client:
        for origin in (PAGE, "http://localhost:3000"):
            asked = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
            wanted = {"Access-Control-Request-Headers": f"content-type, {LENGTH.lower()}"}
            preflight = client.ask("OPTIONS", INFER, None, asked | wanted | {"Access-Control-Request-Method": "POST"})
            assert (preflight.status, preflight.headers["Access-Control-Allow-Origin"]) == (200, origin)
            assert LENGTH in preflight.headers["Access-Control-Allow-Headers"]
            answer = client.post(good()[0], good()[1] | asked)
            assert answer.status == 200, answer.body
            assert answer.headers["Access-Control-Allow-Origin"] == origin
            assert LENGTH in answer.headers["Access-Control-Expose-Headers"]
            assert client.post(b"{}", asked).headers["Access-Control-Allow-Origin"] == origin
        for origin in (f"{PAGE}.org", "null", "http://localhost:3001"):
            refused = client.post(good()[0], good()[1] | {"Origin": origin})
            assert_refused(refused, 403, "--allow-origin")
            assert "Access-Control-Allow-Origin" not in refused.headers
            preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            assert client.ask("OPTIONS", INFER, None, preflight).status == 400


@pytest.mark.parametrize("origin", ["*", "null", "example.com", f"{PAGE}/", "https://A.com", "https://a.com/x", ""])
def test_origins_must_be_as_browsers_send_them(folder, capsys, origin):
    assert cli.run(["serve", str(folder), "--allow-origin", origin]) == 2
    line = capsys.readouterr().err
    assert "--allow-origin must be as browsers send it" in line
    assert line.count("\n") == 1
