"""Hostile peers and strangers at SecretFlow's transports with our frames in them. Collected where it is installed."""

import base64
import json
import signal
import subprocess
import sys
import urllib.request
import warnings
from pathlib import Path

import pytest

from experiments import certificates
from parties.devices.production import TRANSPORTS
from parties.devices.wire import Lane
from parties.errors import MessageError, ModelError
from tests.devices import hostile
from tests.devices.pair import Pair
from tests.devices.ports import ports

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of SecretFlow's own imports
    import grpc
    from secretflow.distributed.fed.proxy.grpc import fed_pb2, fed_pb2_grpc

    from parties.devices import transports


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return certificates.make(tmp_path_factory.mktemp("certificates"), ["alice", "bob", "carol"])


def stranger(address: str, party: str, payload: bytes, tls=None, number: int = 7) -> str:
    """Says over gRPC that it is `party`; what it is answered."""
    if tls is None:
        channel = grpc.insecure_channel(address)
    else:
        pem = [Path(file).read_bytes() for file in (tls.authority, tls.key, tls.certificate)]
        names = [("grpc.ssl_target_name_override", party)]
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(*pem), options=names)
    request = fed_pb2.SfFedProxySendData(data=payload, seq_id=number, job_name="job")
    try:
        return fed_pb2_grpc.SfFedProxyStub(channel).SendData(request, timeout=10).result
    except grpc.RpcError as error:
        return f"{error.code().name} {error.details()}"
    finally:
        channel.close()


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_values_come_as_they_were(transport, secure, tls):
    with Pair(transport, tls if secure else None) as pair:
        sent = [b"", b"x" * 1_000_000, None, 7, "text", {"a": [1.5, None, True]}]
        for number, value in enumerate(sent, 1):
            pair.bob.send("alice", value, number)
        assert [pair.alice.recv("bob", number) for number in range(1, len(sent) + 1)] == sent
        with pytest.raises(MessageError, match="party 'alice': value: saw object"):
            pair.alice.send("bob", object(), 9)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_no_crafted_payload_is_executed(transport, tmp_path):
    """Each ends the run of whoever gets it, with an error of ours; nothing of it runs."""
    mark = tmp_path / "executed"
    with Pair(transport) as pair:
        payloads = hostile.payloads(pair.bob._to["alice"], mark)
        assert len(payloads) >= 20
        for name, payload in payloads.items():
            pair.push(payload)
            with pytest.raises(MessageError, match="party 'alice': frame"):
                pair.alice.recv("bob", 7)
            assert not mark.exists(), name
            assert str(pair.alice._refused).startswith("party 'alice': frame")
            pair.alice._refused = None  # a run would have ended


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_replay_changes_nothing(transport, caplog):
    with Pair(transport) as pair:
        frame = pair.bob._to["alice"].pack(1, b"first")
        for number, payload in ((1, frame), (1, frame), (2, pair.bob._to["alice"].pack(2, b"second"))):
            pair.push(payload, number)
        assert [pair.alice.recv("bob", number) for number in (1, 2)] == [b"first", b"second"]
    assert "alice: frame 1 of 'bob' came again: refused" in caplog.text


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_frame_of_another_run(transport):
    with Pair(transport) as before:
        kept = before.bob._to["alice"].pack(7, b"of an earlier run")
    with Pair(transport) as pair:
        pair.push(kept)
        with pytest.raises(MessageError, match="frame tag: saw another than that of the frame, as from 'bob'"):
            pair.alice.recv("bob", 7)


def test_strangers_over_grpc(tls):
    for as_, said in (("mallory", "sender: saw 'mallory'"), ("bob", "frame tag"), ("alice", "sender: saw 'alice'")):
        with Pair("grpc") as pair:
            payload = Lane(as_, "alice", hostile.KEY).pack(7, b"payload")
            assert said in stranger(pair.addresses["alice"], as_, payload)
            with pytest.raises(MessageError, match=said):
                pair.alice.recv("bob", 7)


def test_strangers_over_grpc_with_tls(tls):
    """carol has a certificate of the same authority; bob's key of the run would not help her."""
    with Pair("grpc", tls) as pair:
        payload = pair.bob._to["alice"].pack(7, b"payload")
        assert "UNAVAILABLE" in stranger(pair.addresses["alice"], "alice", payload)  # no TLS
        assert pair.alice._refused is None, "not even a frame has come"
        carol = tls["carol"]
        said = stranger(pair.addresses["alice"], "alice", payload, carol)
        assert "PERMISSION_DENIED" in said and "'bob' by a certificate of ['carol']" in said
        with pytest.raises(MessageError, match="by a certificate of"):
            pair.alice.recv("bob", 7)


@pytest.mark.parametrize("secure", [False, True])
def test_a_stranger_over_brpc(secure, tls):
    """Its server takes plain HTTP beside TLS, in whose name it may: the tag tells."""
    with Pair("brpc_link", tls if secure else None) as pair:
        value = Lane("bob", "alice", hostile.KEY).pack(7, b"payload")
        key = "root:P2P-2:1->0\x01\x022"  # as the link names its second message from bob
        said = {"sender_rank": 1, "key": key, "value": base64.b64encode(value).decode(), "trans_type": 0}
        url = f"http://{pair.addresses['alice']}/org.interconnection.link.ReceiverService/Push"
        request = urllib.request.Request(url, json.dumps(said).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert answer.status == 200, "it is let in"
        with pytest.raises(MessageError, match="party 'alice': frame tag"):
            pair.alice.recv("bob", 7)


def test_a_peer_that_left_first_does_not_hold_up_the_end():
    """What it did not acknowledge would be sent again for ever; by default the link ends the process with 255."""
    addresses = [f"127.0.0.1:{port}" for port in ports(2)]
    command = [sys.executable, "-m", "tests.devices.leaving_peer"]
    with subprocess.Popen([*command, "alice", *addresses], stderr=subprocess.DEVNULL) as alice:
        bob = subprocess.run([*command, "bob", *addresses], capture_output=True, text=True, timeout=60)
        assert alice.wait(30) == -signal.SIGKILL
    assert bob.returncode == 0, bob.stderr
    assert "retry_count" in bob.stdout + bob.stderr, "alice had not left"
    assert "stopped in 3." in bob.stdout


def test_another_version_of_secretflow_is_refused(monkeypatch):
    monkeypatch.setattr(transports, "SECRETFLOW", "1.13.0b0")
    with pytest.raises(ModelError, match="secretflow version: saw 1.14.0b0, wanted 1.13.0b0"):
        transports.check_version()
