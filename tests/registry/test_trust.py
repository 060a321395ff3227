import json
import sys
from pathlib import Path

import pytest
from made import sum_of, write_release

from compress.cli import main

try:
    import model_signing.signing  # noqa: F401
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
except ImportError:
    pytest.skip("model-signing and pyopenssl are not installed: the extra `sign`", allow_module_level=True)

ANY = "nothing of it is used"


def write_keys(folder: Path, name: str, private=None, password: bytes | None = None) -> tuple[Path, Path]:
    """KEY.pem and PUB.pem, by default on P-256."""
    private = private or ec.generate_private_key(ec.SECP256R1())
    hidden = form.BestAvailableEncryption(password) if password else form.NoEncryption()
    key, public = folder / f"{name}.pem", folder / f"{name}-public.pem"
    key.write_bytes(private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, hidden))
    public.write_bytes(private.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))
    return key, public


@pytest.fixture
def keys(tmp_path) -> tuple[Path, Path]:
    return write_keys(tmp_path, "ours")


@pytest.fixture
def signed(publish, keys, registry) -> Path:
    """The version 1.0.0, signed with our key."""
    assert publish("1.0.0", "--key", str(keys[0])) == 0
    return registry / "tiny" / "1.0.0"


def fetch(registry: Path, public: Path, *more: str) -> int:
    return main(["fetch", "tiny", "--from", str(registry), "--require-key", str(public), *more])


def model_signing_does(*arguments: object) -> None:
    """Its own command line, which exits where it fails."""
    from model_signing._cli import main as command

    command(list(map(str, arguments)), standalone_mode=False)


def test_what_the_owner_of_the_key_signed_is_fetched_with_its_signature(signed, registry, keys):
    assert fetch(registry, keys[1]) == 0
    assert {path.name for path in Path("tiny").iterdir()} == {
        *(path.name for path in signed.iterdir()),
        ".fetched.json",
    }
    assert fetch(registry, keys[1], "--format", "tflite", "--out", "app") == 0
    assert (Path("app") / "model.sig").read_bytes() == (signed / "model.sig").read_bytes()


def test_a_signature_is_one_that_model_signing_verifies(signed, registry, keys):
    fetch(registry, keys[1])
    for folder in (signed, Path("tiny")):
        model_signing_does("verify", "key", "--public_key", keys[1], "--signature", folder / "model.sig", folder)


def test_a_signature_that_model_signing_made_is_one(publish, registry, keys):
    publish("1.0.0")
    folder = registry / "tiny" / "1.0.0"
    model_signing_does("sign", "key", "--private_key", keys[0], "--signature", folder / "model.sig", folder)
    assert fetch(registry, keys[1]) == 0


def test_what_is_not_signed_is_refused(publish, registry, keys, refused):
    publish("1.0.0")
    said = refused("fetch", "tiny", "--from", registry, "--require-key", keys[1])
    assert said.startswith(f"{registry}/tiny/1.0.0: is not signed")
    assert not Path("tiny").exists()


def test_what_another_key_signed_is_refused_and_the_folder_stays(signed, publish, registry, keys, refused, tmp_path):
    theirs = write_keys(tmp_path, "theirs", ec.generate_private_key(ec.SECP384R1()))
    assert f"is no signature by {theirs[1]}" in refused("fetch", "tiny", "--from", registry, "--require-key", theirs[1])
    assert not Path("tiny").exists()
    fetch(registry, keys[1])
    publish("1.1.0", "--key", str(theirs[0]), seed=1)
    assert f"is no signature by {keys[1]}" in refused("fetch", "tiny", "--from", registry, "--require-key", keys[1])
    assert json.loads((Path("tiny") / "manifest.json").read_text())["version"] == "1.0.0"


def test_a_registry_that_changes_everything_but_the_signature_is_refused(signed, registry, keys, refused):
    """Model, manifest and index fit each other, as whoever holds the server can make them."""
    manifest = json.loads((signed / "manifest.json").read_text())
    entry = next(each for each in manifest["files"] if each["format"] == "tflite")
    replace(signed / entry["file"], b"other bytes")
    entry |= {"sha256": sum_of(b"other bytes"), "size_bytes": 11}
    data = json.dumps(manifest).encode()
    replace(signed / "manifest.json", data)
    index = json.loads((registry / "tiny" / "index.json").read_text())
    index["versions"]["1.0.0"] |= {"sha256": sum_of(data), "size_bytes": len(data)}
    (registry / "tiny" / "index.json").write_text(json.dumps(index))
    said = refused("fetch", "tiny", "--from", registry, "--require-key", keys[1])
    assert f"is by {keys[1]}, but of other files" in said
    assert not Path("tiny").exists()
    assert main(["fetch", "tiny", "--from", str(registry)]) == 0  # which is why there are signatures


def replace(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[" * 100_000, b"\xff\xfe", b'{"mediaType": "x", "verificationMaterial": {}}', b" " * (1 << 21)],
)
def test_what_is_no_signature_is_refused(signed, registry, keys, refused, data):
    replace(signed / "model.sig", data)
    said = refused("fetch", "tiny", "--from", registry, "--require-key", keys[1])
    assert said.startswith(str(signed / "model.sig"))
    assert said.endswith(ANY)


def test_a_signature_whose_content_was_changed_is_refused(signed, registry, keys, refused):
    bundle = json.loads((signed / "model.sig").read_text())
    del bundle["verificationMaterial"]["publicKey"]["hint"]
    bundle["dsseEnvelope"]["payload"] = bundle["dsseEnvelope"]["payload"].replace("A", "B")
    replace(signed / "model.sig", json.dumps(bundle).encode())
    assert "is no signature by" in refused("fetch", "tiny", "--from", registry, "--require-key", keys[1])


def test_a_version_can_be_signed_later_but_keeps_its_signature(publish, registry, keys, tmp_path, refused):
    publish("1.0.0")
    before = (registry / "tiny" / "index.json").read_bytes()
    assert publish("1.0.0", "--key", str(keys[0])) == 0
    signature = (registry / "tiny" / "1.0.0" / "model.sig").read_bytes()
    assert publish("1.0.0", "--key", str(keys[0])) == 0
    theirs = write_keys(tmp_path, "theirs")
    run = tmp_path / "run-1.0.0"
    assert "is no signature by" in refused("publish", run, "--to", registry, "--key", theirs[0])
    assert (registry / "tiny" / "1.0.0" / "model.sig").read_bytes() == signature
    assert (registry / "tiny" / "index.json").read_bytes() == before
    assert fetch(registry, keys[1]) == 0


def test_a_manifest_that_names_the_signature_as_its_own_is_refused(tmp_path, registry, refused):
    beside = [{"role": "labels", "file": "model.sig", "sha256": "0" * 64, "size_bytes": 1}]
    run = write_release(tmp_path / "run", beside=beside)
    assert "'model.sig' is no file in its own folder" in refused("publish", run, "--to", registry)


def test_a_pinned_version_that_is_there_with_its_signature_needs_no_registry(signed, registry, keys, refused, tmp_path):
    fetch(registry, keys[1])
    pinned = ["fetch", "tiny@1.0.0", "--from", str(tmp_path / "gone"), "--require-key"]
    assert main([*pinned, str(keys[1])]) == 0
    (Path("tiny") / "model.sig").unlink()
    assert "is not signed" in refused(*pinned, keys[1])


def test_a_file_that_holds_no_key_is_one_line(tmp_path, registry, keys, refused):
    run = write_release(tmp_path / "run")
    other = write_keys(tmp_path, "rsa", rsa.generate_private_key(65537, 2048))
    hidden, _ = write_keys(tmp_path, "hidden", password=b"secret")
    curve = write_keys(tmp_path, "k1", ec.generate_private_key(ec.SECP256K1()))
    for key in (run / "labels.txt", keys[1], other[0], curve[0]):
        assert f"{key}: holds no private key" in refused("publish", run, "--to", registry, "--key", key)
    for key in (run / "labels.txt", keys[0], other[1], curve[1], hidden):
        assert f"{key}: holds no public key" in refused("fetch", "tiny", "--from", registry, "--require-key", key)
    assert f"{hidden}: is encrypted" in refused("publish", run, "--to", registry, "--key", hidden)
    assert "none.pem: No such file" in refused("publish", run, "--to", registry, "--key", tmp_path / "none.pem")
    assert "is a folder" in refused("fetch", "tiny", "--from", registry, "--require-key", tmp_path)
    assert not registry.exists()


def test_without_the_library_the_line_says_what_to_install(tmp_path, registry, keys, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    run = write_release(tmp_path / "run")
    assert "compress-mobile[sign]" in refused("publish", run, "--to", registry, "--key", keys[0])
    assert "compress-mobile[sign]" in refused("fetch", "tiny", "--from", registry, "--require-key", keys[1])
    assert not registry.exists()
