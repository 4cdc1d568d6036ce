"""Makes the golden messages with the official AWS Encryption SDK for Python and its Material Providers Library.

    python3 -m venv VENV
    VENV/bin/pip install 'aws-encryption-sdk[MPL]==4.0.7' aws-cryptographic-material-providers==1.11.3 cryptography==50.0.2
    VENV/bin/python envelope/testdata/make.py

It writes golden.json, golden/ and keys/ beside itself. Keys, message IDs and signatures are random, so that all of it is
made anew: golden messages of a release are kept, and this is only run to add some. Before it writes a message it lets
the SDK decrypt it.

golden.json is a list. Each entry: file, version of the format, suite, frameLength (0: not framed), size and sha256 of
the plaintext, rawKey (file= below this directory) that opens it, commitment policy, context (all that is authenticated
but the public key), stored (what of it the header has), keys (how many encrypted data keys there are). A file with
several keys has an entry for each of them.
"""
import hashlib
import importlib.metadata
import json
import os
import pathlib
import shutil

import aws_encryption_sdk
from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders
from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
from aws_cryptographic_material_providers.mpl.models import (
    CreateDefaultCryptographicMaterialsManagerInput,
    CreateMultiKeyringInput,
    CreateRawAesKeyringInput,
    CreateRawRsaKeyringInput,
    CreateRequiredEncryptionContextCMMInput,
)
from aws_encryption_sdk.identifiers import AlgorithmSuite, CommitmentPolicy
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

VERSIONS = {
    "aws-encryption-sdk": "4.0.7",
    "aws-cryptographic-material-providers": "1.11.3",
    "cryptography": "50.0.2",
}
HERE = pathlib.Path(__file__).resolve().parent
MPL = AwsCryptographicMaterialProviders(config=MaterialProvidersConfig())

SUITES = [0x0014, 0x0046, 0x0078, 0x0114, 0x0146, 0x0178, 0x0214, 0x0346, 0x0378, 0x0478, 0x0578]
REQUIRE, FORBID = "require-encrypt-require-decrypt", "forbid-encrypt-allow-decrypt"
POLICIES = {
    REQUIRE: CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT,
    FORBID: CommitmentPolicy.FORBID_ENCRYPT_ALLOW_DECRYPT,
}
NAMESPACE = "golden keys"
CONTEXT = {"purpose": "golden", "made by": "the SDK for Python"}

index = []


def plaintext(size):
    """Bytes without a short period."""
    return bytes((i * 131 + (i >> 8) * 29 + 7) & 0xFF for i in range(size))


class AES:
    def __init__(self, bits):
        self.name, self.file = f"aes-{bits}", f"keys/aes{bits}.key"
        self.algorithm, self.bits, self.key = "AES", bits, os.urandom(bits // 8)
        (HERE / self.file).write_bytes(self.key)

    def keyring(self):
        return MPL.create_raw_aes_keyring(
            CreateRawAesKeyringInput(
                key_namespace=NAMESPACE,
                key_name=self.name,
                wrapping_key=self.key,
                wrapping_alg=f"ALG_AES{self.bits}_GCM_IV12_TAG16",
            )
        )


class RSA:
    def __init__(self, algorithm, padding, private_format, public_format):
        self.algorithm, self.padding = algorithm, padding
        self.name = algorithm.lower()
        self.file = f"keys/{self.name}.pem"
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        # The library reads these two forms; the files have others, too.
        self.private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (HERE / self.file).write_bytes(key.private_bytes(Encoding.PEM, private_format, NoEncryption()))
        (HERE / f"keys/{self.name}.pub.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, public_format))

    def keyring(self):
        return MPL.create_raw_rsa_keyring(
            CreateRawRsaKeyringInput(
                key_namespace=NAMESPACE,
                key_name=self.name,
                padding_scheme=self.padding,
                public_key=self.public,
                private_key=self.private,
            )
        )


def materials_manager(keyring, required):
    manager = MPL.create_default_cryptographic_materials_manager(
        CreateDefaultCryptographicMaterialsManagerInput(keyring=keyring)
    )
    if not required:
        return manager
    return MPL.create_required_encryption_context_cmm(
        CreateRequiredEncryptionContextCMMInput(underlying_cmm=manager, required_encryption_context_keys=required)
    )


def make(name, suite, frame, size, keys, context=CONTEXT, required=()):
    """Makes a message of size bytes in frames of frame bytes, wrapped for each of keys, of which the first generates."""
    version = 2 if suite >= 0x0400 else 1
    policy = REQUIRE if version == 2 else FORBID
    client = aws_encryption_sdk.EncryptionSDKClient(commitment_policy=POLICIES[policy])
    keyrings = [k.keyring() for k in keys]
    keyring = keyrings[0]
    if len(keyrings) > 1:
        keyring = MPL.create_multi_keyring(CreateMultiKeyringInput(generator=keyrings[0], child_keyrings=keyrings[1:]))
    data = plaintext(size)
    message, header = client.encrypt(
        source=data,
        materials_manager=materials_manager(keyring, list(required)),
        encryption_context=context,
        algorithm=AlgorithmSuite.get_by_id(suite),
        frame_length=frame,
    )
    stored = {k: v for k, v in header.encryption_context.items() if k != "aws-crypto-public-key"}
    if stored != {k: v for k, v in context.items() if k not in required}:
        raise SystemExit(f"{name}: the header has {stored}")
    for key, own in zip(keys, keyrings):
        opened, _ = client.decrypt(
            source=message, materials_manager=materials_manager(own, list(required)), encryption_context=context
        )
        if opened != data:
            raise SystemExit(f"{name}: the SDK does not open its own message")
    file = f"golden/{name}.msg"
    (HERE / file).write_bytes(message)
    for key in keys:
        index.append(
            {
                "file": file,
                "version": version,
                "suite": f"0x{suite:04x}",
                "frameLength": frame,
                "size": size,
                "sha256": hashlib.sha256(data).hexdigest(),
                "rawKey": f"namespace={NAMESPACE},name={key.name},algorithm={key.algorithm},file={key.file}",
                "policy": policy,
                "context": context,
                "stored": stored,
                "keys": len(keys),
            }
        )


def main():
    for package, version in VERSIONS.items():
        found = importlib.metadata.version(package)
        if found != version:
            raise SystemExit(f"{package} {found} is installed, and {version} is wanted: say so here, and why")
    for directory in ("golden", "keys"):
        shutil.rmtree(HERE / directory, ignore_errors=True)
        (HERE / directory).mkdir()

    aes = {bits: AES(bits) for bits in (128, 192, 256)}
    pkcs8, pkcs1 = PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL
    pkix = PublicFormat.SubjectPublicKeyInfo
    rsas = [
        RSA("RSA-OAEP-SHA1", "OAEP_SHA1_MGF1", pkcs8, pkix),
        RSA("RSA-OAEP-SHA256", "OAEP_SHA256_MGF1", pkcs1, PublicFormat.PKCS1),
        RSA("RSA-OAEP-SHA384", "OAEP_SHA384_MGF1", pkcs8, pkix),
        RSA("RSA-OAEP-SHA512", "OAEP_SHA512_MGF1", pkcs8, pkix),
        RSA("RSA-PKCS1", "PKCS1", pkcs1, pkix),
    ]
    usual = [aes[256]]

    # Every suite, framed and not.
    for suite in SUITES:
        make(f"{suite:04x}-frames-of-4096-size-4097", suite, 4096, 4097, usual)
        make(f"{suite:04x}-frames-of-128-size-300", suite, 128, 300, usual)
        make(f"{suite:04x}-not-framed-size-1000", suite, 0, 1000, usual)
    # Every size at the edges of frames, in both versions, signed and not. The SDK writes no frames of under 128 bytes.
    for suite in (0x0178, 0x0378, 0x0478, 0x0578):
        for size in (0, 1, 4095, 4096):
            if size < 4095 or suite in (0x0178, 0x0578):
                make(f"{suite:04x}-frames-of-4096-size-{size}", suite, 4096, size, usual)
        for size in (0, 1, 127, 128, 129):
            make(f"{suite:04x}-frames-of-128-size-{size}", suite, 128, size, usual)
        for size in (0, 1):
            make(f"{suite:04x}-not-framed-size-{size}", suite, 0, size, usual)
    # Many frames.
    for size in (4095, 4096, 4097):
        make(f"0578-frames-of-128-size-{size}", 0x0578, 128, size, usual)
    make("0114-frames-of-128-size-4096", 0x0114, 128, 4096, usual)
    # Every wrapping key, with data keys of 32 and of 16 bytes; several keys, each of which opens.
    for key in [*aes.values(), *rsas]:
        make(f"0578-{key.name}", 0x0578, 4096, 100, [key])
        make(f"0014-{key.name}", 0x0014, 4096, 100, [key])
    make("0578-three-keys", 0x0578, 4096, 100, [rsas[1], aes[128], rsas[4]])
    make("0346-eight-keys", 0x0346, 4096, 100, [*aes.values(), *rsas])
    # Contexts: none, in the order of UTF-8 and not of UTF-16, large.
    for suite in (0x0178, 0x0478, 0x0578):
        make(f"{suite:04x}-no-context", suite, 4096, 100, usual, context={})
    order = {"\uff5e": "before", "\U0001f511": "after", "z": "first", "zz": "second", "ä": "ö, ü = ß"}
    make("0478-context-order", 0x0478, 4096, 100, usual, context=order)
    make("0578-context-order", 0x0578, 4096, 100, usual, context=order)
    large = {f"key {i:02d}": "v" * 240 for i in range(32)}
    make("0578-context-large", 0x0578, 4096, 100, usual, context=large)
    # Pairs that are authenticated and not stored.
    for suite in (0x0478, 0x0578):
        for frame in (4096, 0):
            kind = "framed" if frame else "not-framed"
            make(f"{suite:04x}-{kind}-required-one", suite, frame, 100, usual, required=["purpose"])
            make(f"{suite:04x}-{kind}-required-all", suite, frame, 100, usual, required=sorted(CONTEXT))
    make("0178-required-one", 0x0178, 4096, 100, usual, required=["purpose"])
    make("0378-required-all", 0x0378, 128, 300, usual, required=sorted(CONTEXT))
    make("0578-required-order", 0x0578, 4096, 100, [rsas[1], aes[128]], context=order, required=["\uff5e", "\U0001f511", "z"])

    with open(HERE / "golden.json", "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(e, ensure_ascii=False) for e in index) + "\n]\n")
    total = sum(p.stat().st_size for p in (HERE / "golden").iterdir())
    print(f"{len(index)} entries, {len(list((HERE / 'golden').iterdir()))} messages, {total} bytes")


if __name__ == "__main__":
    main()
