"""The commands against a scripted API: what is sent, what is printed, how it exits."""

import json
import re

import httpx
import pytest

from entrepot_cli import api, waiting
from entrepot_cli.__main__ import EMBEDDED, NOUNS, build, run

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
JOB = "01890a5d-ac96-774b-bcce-0000000000aa"
KEY = "ek_canary_key"
TEMPLATE = {
    "id": ID,
    "name": "u24",
    "format": "qcow2",
    "scope": "region",
    "size_bytes": 3 << 30,
    "virtual_size_bytes": None,
    "state": "ready",
    "error": None,
    "copies": [{"store_id": ID, "zone_id": None, "state": "Ready", "stored": None, "error": None}],
}
ACCEPTED = {"id": ID, "job_id": JOB, "links": {}}


def job(state, **changes):
    fields = {"id": JOB, "kind": "template.register", "resource_id": ID, "state": state}
    return fields | {"step": "copy", "bytes_done": 0, "bytes_total": None, "error": None} | changes


class Script:
    """Answers by "METHOD /path"; a list is answered one after the other, its last for ever."""

    def __init__(self):
        self.answers = {}
        self.sent = []

    def __call__(self, request):
        self.sent.append(request)
        word = f"{request.method} {request.url.path}"
        answer = self.answers.get(word)
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, Exception):
            raise answer
        status, body = answer if isinstance(answer, tuple) else (200, answer)
        if answer is None:
            status, body = 404, {"code": "not_found", "detail": f"script has no {word}"}
        if isinstance(body, bytes):
            return httpx.Response(status, content=body)
        return httpx.Response(status, json=body)

    def bodies(self, word):
        return [
            json.loads(request.content)
            for request in self.sent
            if f"{request.method} {request.url.path}" == word
        ]


@pytest.fixture
def script(monkeypatch, tmp_path):
    made = Script()
    monkeypatch.setattr(api, "TRANSPORT", httpx.MockTransport(made))
    monkeypatch.setattr(api, "PAUSE_S", 0)
    monkeypatch.setattr(waiting, "POLL_S", 0)
    for name in ("ENTREPOT_KEY_FILE", "ENTREPOT_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ENTREPOT_URL", "http://api.example")
    monkeypatch.setenv("ENTREPOT_KEY", KEY)
    return made


def entrepot(line, capsys):
    code = run(line.split())
    said = capsys.readouterr()
    assert KEY not in said.out + said.err
    return int(code), said.out, said.err


# --- output ---


def test_a_table_has_a_head_and_human_sizes(script, capsys):
    script.answers["GET /v1/templates"] = {"items": [TEMPLATE], "next": None}
    code, out, _ = entrepot("template list", capsys)
    assert code == 0
    head, row = out.splitlines()
    assert head.split() == ["ID", "NAME", "FORMAT", "SCOPE", "SIZE", "VIRTUAL", "STATE", "ERROR"]
    assert row.split() == [ID, "u24", "qcow2", "region", "3.0", "GiB", "-", "ready", "-"]


def test_programs_get_json_lines_or_ids(script, capsys):
    script.answers["GET /v1/zones"] = {
        "items": [{"id": "1", "name": "a"}, {"id": "2", "name": "b"}],
        "next": None,
    }
    assert [zone["id"] for zone in json.loads(entrepot("zone list -o json", capsys)[1])] == [
        "1",
        "2",
    ]
    lines = entrepot("zones list -o jsonl", capsys)[1].splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["a", "b"]
    assert entrepot("zone list -o name", capsys)[1] == "1\n2\n"


def test_a_list_follows_all_pages(script, capsys):
    script.answers["GET /v1/zones"] = [
        {"items": [{"id": "1", "name": "a"}], "next": "1"},
        {"items": [{"id": "2", "name": "b"}], "next": None},
    ]
    assert entrepot("zone list -o name", capsys)[1] == "1\n2\n"
    assert script.sent[1].url.params["after"] == "1"


def test_names_from_afar_cannot_drive_the_terminal(script, capsys):
    script.answers["GET /v1/zones"] = {"items": [{"id": "1", "name": "a\x1b[2Jb"}], "next": None}
    assert "\x1b" not in entrepot("zone list", capsys)[1]


# --- what is sent ---


def test_a_template_is_registered_with_zones_by_name(script, capsys):
    script.answers["GET /v1/zones"] = {"items": [{"id": ID, "name": "z1"}], "next": None}
    script.answers["POST /v1/templates"] = (202, ACCEPTED)
    line = "template register --name u24 --url http://x/y --format raw --scope zone --zone z1"
    code, out, err = entrepot(f"{line} --checksum sha256:AB12 -o json", capsys)
    assert (code, json.loads(out)) == (0, ACCEPTED)
    assert f"entrepot job wait {JOB}" in err
    assert script.bodies("POST /v1/templates") == [
        {
            "name": "u24",
            "url": "http://x/y",
            "format": "raw",
            "scope": "zone",
            "public": False,
            "checksum": {"algorithm": "sha256", "value": "ab12"},
            "zone_ids": [ID],
        }
    ]


def test_store_settings_take_the_types_of_the_schema(script, capsys, tmp_path, monkeypatch):
    secret = tmp_path / "k"
    secret.write_text("s3cret\n")
    monkeypatch.setenv("TOKEN", "tok")
    schema = {
        "$ref": "#/$defs/C",
        "$defs": {
            "C": {
                "properties": {
                    "port": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                    "tls": {"type": "boolean"},
                    "path": {"type": "string"},
                    "tags": {"type": "array"},
                }
            }
        },
    }
    provider = {"name": "s3", "config_schema": schema}
    script.answers["GET /v1/providers"] = {"items": [provider], "next": None}
    script.answers["POST /v1/image-stores"] = (202, ACCEPTED)
    code, _, err = entrepot(
        f"store add s3 --name main --set port=8080 --set tls=true --set path=7 --set tags=[1] "
        f"--secret-file key={secret} --secret-env token=TOKEN",
        capsys,
    )
    assert code == 0, err
    (body,) = script.bodies("POST /v1/image-stores")
    assert body["config"] == {
        "port": 8080,
        "tls": True,
        "path": "7",
        "tags": [1],
        "key": "s3cret",
        "token": "tok",
    }
    assert entrepot("store add s3 --name main --set port=many", capsys)[0] == 2


def test_a_volume_comes_from_one_of_three_and_sizes_have_units(script, capsys):
    script.answers["POST /v1/volumes"] = (202, ACCEPTED)
    assert entrepot(f"volume create --name v --zone {ID} --size 10GiB", capsys)[0] == 0
    assert script.bodies("POST /v1/volumes")[0]["size_bytes"] == 10 << 30
    assert entrepot(f"volume create --name v --zone {ID} --size huge", capsys)[0] == 2


def test_a_repeat_of_a_post_keeps_its_idempotency_key(script, capsys):
    busy = (503, {"code": "unavailable", "detail": "busy", "retryable": True})
    script.answers["POST /v1/zones"] = [busy, httpx.ConnectError("gone"), (201, {"id": ID})]
    assert entrepot("zone create z1", capsys)[0] == 0
    keys = {request.headers["idempotency-key"] for request in script.sent}
    assert len(script.sent) == 3
    assert len(keys) == 1
    entrepot("zone create z1", capsys)
    assert script.sent[-1].headers["idempotency-key"] not in keys


# --- waiting ---


def test_waiting_shows_progress_and_then_the_thing(script, capsys):
    script.answers["POST /v1/templates"] = (202, ACCEPTED)
    script.answers[f"GET /v1/jobs/{JOB}"] = [
        job("running", bytes_done=1 << 20, bytes_total=4 << 20),
        job("running", bytes_done=1 << 20, bytes_total=4 << 20),
        job("succeeded"),
    ]
    script.answers[f"GET /v1/templates/{ID}"] = TEMPLATE
    code, out, err = entrepot(
        "template register --name u24 --url http://x/y --wait -o json", capsys
    )
    assert (code, json.loads(out)) == (0, TEMPLATE)
    assert err.splitlines() == [
        "template.register: running copy  1.0 MiB of 4.0 MiB",
        "template.register: succeeded copy",
    ]


def test_a_failed_job_exits_like_its_error_and_tells_all(script, capsys):
    error = {
        "code": "checksum_mismatch",
        "message": "the bytes are not those you named",
        "field": "checksum",
        "hint": "check the URL",
        "facts": {"expected": "aa", "actual": "bb"},
    }
    script.answers[f"GET /v1/jobs/{JOB}"] = job("failed", error=error)
    code, out, err = entrepot(f"job wait {JOB}", capsys)
    assert (code, out) == (1, "")
    for word in ("checksum_mismatch", "expected: aa", "actual: bb", "hint: check the URL"):
        assert word in err


def test_waiting_gives_up_with_eight(script, capsys):
    script.answers[f"GET /v1/jobs/{JOB}"] = job("running")
    code, _, err = entrepot(f"job wait {JOB} --timeout 0s", capsys)
    assert code == 8
    assert "it goes on" in err
    assert entrepot(f"job wait {JOB} --timeout soon", capsys)[0] == 2


def test_an_extract_prints_its_link(script, capsys):
    script.answers[f"POST /v1/templates/{ID}/extract"] = (202, ACCEPTED)
    script.answers[f"GET /v1/jobs/{JOB}"] = job("succeeded", url="http://store/link?sig=1")
    code, out, _ = entrepot(f"template extract {ID} --expires 15m --wait", capsys)
    assert (code, out.splitlines()[1]) == (0, "http://store/link?sig=1")
    assert script.bodies(f"POST /v1/templates/{ID}/extract") == [{"expires_s": 900}]


# --- exits ---


@pytest.mark.parametrize(
    ("status", "code", "retryable", "expected"),
    [
        (400, "invalid", False, 2),
        (401, "unauthenticated", False, 6),
        (403, "forbidden", False, 6),
        (404, "not_found", False, 3),
        (409, "in_use", False, 4),
        (409, "conflict", False, 4),
        (409, "conflict", True, 5),
        (409, "provider_mixing", False, 4),
        (422, "quota_exceeded", False, 1),
        (429, "rate_limited", True, 5),
        (500, "internal", True, 5),
        (503, "unavailable", True, 5),
    ],
)
def test_exit_codes_tell_what_went_wrong(script, capsys, status, code, retryable, expected):  # noqa: PLR0917
    problem = {
        "code": code,
        "detail": "so it is",
        "field": "name",
        "hint": "do that",
        "retryable": retryable,
        "correlation_id": "c-1",
    }
    script.answers["POST /v1/zones"] = (status, problem)
    exit_code, out, err = entrepot("zone create z1", capsys)
    assert (exit_code, out) == (expected, "")
    assert err.splitlines() == [
        f"error: {code}: so it is",
        "  field: name",
        "  hint: do that",
        "  correlation id: c-1",
    ]


def test_an_api_that_is_away_is_retryable(script, capsys):
    script.answers["GET /v1/zones"] = httpx.ConnectError("refused")
    code, _, err = entrepot("zone list", capsys)
    assert code == 5
    assert "unreachable" in err


def test_an_answer_that_is_not_ours_is_told_as_such(script, capsys):
    script.answers["GET /v1/zones"] = (502, b"<html>")
    assert entrepot("zone list", capsys)[0] == 1


@pytest.mark.parametrize(
    "line", ["zone nope", "nope", "zone create", "zone list --nope", "zone list -o yaml"]
)
def test_wrong_words_are_usage(script, capsys, line):
    code, out, _ = entrepot(line, capsys)
    assert (code, out) == (2, "")


def test_names_are_looked_up_and_must_be_one(script, capsys):
    script.answers["GET /v1/templates"] = {
        "items": [{"id": "1", "name": "u"}, {"id": "2", "name": "u"}, {"id": "3", "name": "v"}],
        "next": None,
    }
    script.answers["GET /v1/templates/3"] = TEMPLATE
    assert entrepot("template show v", capsys)[0] == 0
    assert entrepot("template show nothing", capsys)[0] == 3
    code, _, err = entrepot("template show u", capsys)
    assert code == 4
    assert "1, 2" in err


# --- contexts ---


def test_a_data_folder_gives_address_and_key(script, capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("ENTREPOT_URL")
    monkeypatch.delenv("ENTREPOT_KEY")
    code, _, err = entrepot(f"zone list --data {tmp_path}", capsys)
    assert code == 2
    assert "no running stack" in err
    (tmp_path / "run").mkdir()
    (tmp_path / "admin.key").write_text("ek_of_the_folder\n")
    (tmp_path / "run" / "endpoints.json").write_text('{"api": "http://folder.example:81"}')
    script.answers["GET /v1/zones"] = {"items": [], "next": None}
    assert entrepot(f"zone list --data {tmp_path}", capsys)[0] == 0
    assert script.sent[-1].url.host == "folder.example"
    assert script.sent[-1].headers["authorization"] == "Bearer ek_of_the_folder"


def test_a_key_file_wins_over_the_environment(script, capsys, tmp_path):
    (tmp_path / "k").write_text("ek_of_the_file")
    script.answers["GET /v1/zones"] = {"items": [], "next": None}
    entrepot(f"zone list --key-file {tmp_path / 'k'}", capsys)
    assert script.sent[-1].headers["authorization"] == "Bearer ek_of_the_file"
    assert entrepot(f"zone list --key-file {tmp_path / 'none'}", capsys)[0] == 2


# --- the rest of the nouns ---


def test_own_keys_are_made_and_revoked(script, capsys):
    script.answers["GET /v1/me"] = {"id": ID}
    script.answers[f"POST /v1/accounts/{ID}/keys"] = (201, {"id": JOB, "name": "n", "key": "ek_1"})
    script.answers[f"DELETE /v1/accounts/{ID}/keys/{JOB}"] = (204, b"")
    assert "ek_1" in entrepot("key create n", capsys)[1]
    assert entrepot(f"key revoke {JOB}", capsys)[0] == 0


def test_a_setting_is_set_by_name(script, capsys):
    item = {"name": "image-store.mixing", "value": "any", "default": "same-provider", "help": "h"}
    script.answers["PUT /v1/settings/image-store.mixing"] = {"items": [item], "next": None}
    code, out, _ = entrepot("setting set image-store.mixing any", capsys)
    assert (code, "any" in out) == (0, True)


def test_a_transfer_is_explained_with_its_bids_and_story(script, capsys):
    script.answers[f"GET /v1/transfers/{ID}"] = {
        "id": ID,
        "strategy": "direct",
        "bids": [
            {"strategy": "direct", "chosen": True, "cost_s": 1.5, "reason": "both ends in reach"},
            {"strategy": "staged", "chosen": False, "cost_s": None, "reason": "no cache pool"},
        ],
        "story": ["queued", "claimed by m-1"],
    }
    out = entrepot(f"transfer explain {ID}", capsys)[1]
    assert out.startswith("strategy direct: both ends in reach")
    assert "no cache pool" in out
    assert out.endswith("claimed by m-1\n")


def test_events_are_parsed_resumed_and_counted(script, capsys, monkeypatch):
    from entrepot_cli.nouns import events

    monkeypatch.setattr(events, "AGAIN_S", 0)
    one = b': hi\n\nid: e1\nevent: job.changed\ndata: {"job_id": "1"}\n\n'
    two = b'event: transfer.progress\ndata: {"bytes_done": 7}\n\n'
    script.answers["GET /v1/events"] = [(200, one), (200, two)]
    code, out, err = entrepot("events tail --count 2 -o jsonl", capsys)
    assert code == 0
    first, second = map(json.loads, out.splitlines())
    assert first == {"id": "e1", "event": "job.changed", "data": {"job_id": "1"}}
    assert second["data"] == {"bytes_done": 7}
    assert script.sent[1].headers["last-event-id"] == "e1"
    assert "connecting again" in err


@pytest.mark.parametrize("noun", sorted(NOUNS))
def test_every_noun_has_help_for_every_command(noun, capsys):
    app = build()[noun]
    commands = [name for name in app if not name.startswith("-")]
    assert commands
    for name in commands:
        assert run([noun, name, "--help"]) == 0
        said = capsys.readouterr().out
        assert re.search(rf"entrepot {noun} {name}", said)
        assert len(said.splitlines()[2].strip()) > 10


@pytest.mark.parametrize("name", sorted(EMBEDDED))
def test_the_embedded_commands_are_where_the_command_line_looks_for_them(name, capsys):
    assert run([name, "--help"]) == 0
    assert f"entrepot {name}" in capsys.readouterr().out
