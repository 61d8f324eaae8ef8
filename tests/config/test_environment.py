"""What the environment gives of a node: it replaces the file's values, and faults name the variable."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from relay.config import Config, load_config, parse_config
from relay.config.kept import configured_at, keep_configuration
from relay.errors import ConfigError
from relay.store.connection import PostgresServer
from relay.store.database import open_store
from tests.support import postgres

SERVER = '[store]\nurl = "postgresql:///relay"\nkey_file = "/run/secrets/relay.key"\nfolder = "var"\n'


def loaded(tmp_path: Path, text: str) -> Config:
    (tmp_path / "relay.toml").write_text(text)
    return load_config(tmp_path / "relay.toml")


def faults(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        loaded(tmp_path, text)
    return refused.value.problems


def test_one_file_serves_several_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY700_STORE_NODE", "relay700-1")
    monkeypatch.setenv("RELAY700_SIP_LISTEN", "udp:0.0.0.0:5060, tcp:0.0.0.0:5060")
    monkeypatch.setenv("RELAY700_SIP_ADVERTISE", "10.1.2.3")
    monkeypatch.setenv("RELAY700_API_LISTEN", "127.0.0.1:8709")
    config = loaded(tmp_path, SERVER + 'node = "a"\n[sip]\nlisten = ["udp:127.0.0.1:5099"]\n')
    assert config.store.path == PostgresServer("postgresql:///relay", "relay700-1", Path("var/relay.relay700-1"))
    listeners = [(each.transport, each.host, each.port, each.advertised) for each in config.settings.listeners]
    assert listeners == [("udp", "0.0.0.0", 5060, "10.1.2.3"), ("tcp", "0.0.0.0", 5060, "10.1.2.3")]
    assert (config.api.host, config.api.port, config.api.public_url) == ("127.0.0.1", 8709, "http://127.0.0.1:8709")


def test_an_empty_variable_leaves_the_files_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STORE_NODE", "SIP_LISTEN", "SIP_ADVERTISE", "API_LISTEN"):
        monkeypatch.setenv(f"RELAY700_{name}", " ")
    config = loaded(tmp_path, SERVER + 'node = "a"\n')
    assert isinstance(config.store.path, PostgresServer) and config.store.path.node == "a"
    assert [listener.port for listener in config.settings.listeners] == [5060]


def test_a_node_without_a_folder_has_its_files_beside_the_key(tmp_path: Path) -> None:
    config = loaded(tmp_path, SERVER.replace('folder = "var"\n', 'node = "a"\n'))
    assert config.store.local == Path("/run/secrets/relay.a")


@pytest.mark.parametrize(
    ("variable", "value", "fault"),
    [
        ("RELAY700_STORE_NODE", "A node", "not as expected; write letters a to z, digits and dashes, 32 at most"),
        ("RELAY700_SIP_LISTEN", "udp:127.0.0.1:5060,5061", "'5061' is not a listener; "),
        ("RELAY700_SIP_ADVERTISE", "10.1.2.3:5060", "'10.1.2.3:5060' is not an address; "),
        ("RELAY700_API_LISTEN", "8700", ""),
    ],
)
def test_a_fault_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, fault: str
) -> None:
    monkeypatch.setenv(variable, value)
    told = faults(tmp_path, "[sip]\nring_timeout_s = 7\n")
    assert len(told) == 1 and told[0].startswith(f"{variable}: {fault}"), told


def test_a_missing_node_names_the_variable_that_may_give_it(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, SERVER)
    assert fault.endswith("a unique name, here or in RELAY700_STORE_NODE")


def test_faults_of_the_file_keep_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY700_SIP_LISTEN", "udp:127.0.0.1:5060")
    monkeypatch.setenv("RELAY700_API_LISTEN", "127.0.0.1:8700")
    told = faults(tmp_path, 'api = 1\n[sip]\nt1_ms = "x"\n')
    assert [fault.split(": ")[:2] for fault in told] == [
        [str(tmp_path / "relay.toml"), "api"],
        [str(tmp_path / "relay.toml"), "sip.t1_ms"],
    ]


@pytest.mark.outside
def test_a_former_configuration_has_the_values_of_its_environment(tmp_path: Path) -> None:
    """A file without `node` could not be read again without them."""
    with postgres.new_url() as url:
        text = f'[store]\nurl = "{url}"\nkey_file = "{tmp_path}/relay.key"\nfolder = "{tmp_path}/own"\n'
        given = {"RELAY700_STORE_NODE": "a", "RELAY700_SIP_LISTEN": "udp:127.0.0.1:5070"}
        config = parse_config(text, "relay.toml", given)
        sealer = open_store(config.store.path, config.store.key_file)
        assert (tmp_path / "own").stat().st_mode & 0o777 == 0o700
        keep_configuration(config, sealer)
        with closing(postgres.connect(config.store.path)) as connection:
            now = parse_config(text, "relay.toml", given | {"RELAY700_SIP_LISTEN": "udp:127.0.0.1:5071"})
            then = configured_at(connection, sealer, now, 1 << 42)
    assert "in force since" in then.note
    assert [listener.port for listener in then.settings.listeners] == [5070]
