"""The passwords that people have stored for registries: auth.json, Docker's file, helper programs.

Sources: containers-auth.json(5), docker-login(1), the docker-credential-helpers protocol.
"""

from __future__ import annotations

import binascii
import os

from rootlesspy import light_json
from rootlesspy.errors import NotFound, RegistryError
from rootlesspy.image.auth import DOCKER_HUB, Credentials
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_FILE_BYTES = 4 * 1024 * 1024
_HELPER_TIMEOUT_S = 60
_HELPER_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
_ABSENT = "credentials not found"


def find(
    registry: str, repository: str, environment: Mapping[str, str], config_directory: str
) -> tuple[Credentials | None, str | None]:
    """Look for credentials; return them with the path of their file.

    The most specific key first; a helper program that a file names for the registry is asked.
    Raises RegistryError for a file that cannot be read or a helper that fails.
    """
    for path in files(environment, config_directory):
        document = _document(path)
        auths = _members(document, "auths")
        for key in _keys(registry, repository):
            found = _decoded(path, auths[key]) if key in auths else None
            if found is not None:
                return found, path
        helper = helper_of(document, registry)
        found = _from_helper(helper, registry, environment) if helper else None
        if found is not None:
            # The file holds no secret.
            return found, None
    return None, None


def files(environment: Mapping[str, str], config_directory: str) -> list[str]:
    """Return the files that are looked at, in order; the first one is written by rp login."""
    forced = environment.get("REGISTRY_AUTH_FILE")
    if forced:
        return [forced]
    home, runtime = environment.get("HOME"), environment.get("XDG_RUNTIME_DIR")
    found = [f"{runtime}/containers/auth.json"] if runtime else []
    found.append(f"{config_directory}/containers/auth.json")
    return [*found, f"{home}/.docker/config.json"] if home else found


def helper_of(document: Mapping[str, object], registry: str) -> str | None:
    """Return the name of the helper program that a file names for a registry."""
    helpers = _members(document, "credHelpers")
    name = helpers.get(registry) or document.get("credsStore")
    if isinstance(name, str) and name and _HELPER_CHARACTERS.issuperset(name):
        return name
    return None


def store(path: str, registry: str, known: Credentials, environment: Mapping[str, str]) -> None:
    """Write credentials for a registry to a file, or give them to the helper that it names.

    Raises RegistryError for a file or helper that cannot be used.
    """
    document = _document(path)
    helper = helper_of(document, registry)
    if helper is not None:
        secret = {"ServerURL": registry, "Username": known.username, "Secret": known.password}
        _ask_helper(helper, "store", json.dumps(secret), environment)
        return
    pair = binascii.b2a_base64(
        f"{known.username}:{known.password}".encode(), newline=False
    ).decode()
    document["auths"] = {**_members(document, "auths"), registry: {"auth": pair}}
    _write(path, document)


def forget(path: str, registry: str | None, environment: Mapping[str, str]) -> bool:
    """Remove the credentials of a registry, or all of them; say whether there were any."""
    document = _document(path)
    auths = _members(document, "auths")
    gone = list(auths) if registry is None else [key for key in auths if key == registry]
    helper = helper_of(document, registry) if registry is not None else None
    had_helper = False
    if helper is not None and registry is not None:
        had_helper = _from_helper(helper, registry, environment) is not None
        if had_helper:
            _ask_helper(helper, "erase", registry, environment)
    if gone:
        document["auths"] = {key: value for key, value in auths.items() if key not in gone}
        _write(path, document)
    return bool(gone) or had_helper


def is_readable_by_others(path: str) -> bool:
    """Say whether somebody else may read the file."""
    try:
        return bool(os.stat(path).st_mode & 0o077)
    except OSError:
        return False


def _keys(registry: str, repository: str) -> list[str]:
    keys = []
    path = f"{registry}/{repository}"
    while path:
        keys.append(path)
        path = path.rpartition("/")[0]
    keys += [f"https://{registry}", f"https://{registry}/v1/", f"https://{registry}/v2/"]
    if registry in DOCKER_HUB:
        keys += ["index.docker.io", "https://index.docker.io/v1/"]
    return keys


def _document(path: str) -> dict[str, object]:
    """Return the content of a file, nothing when it does not exist.  Raises RegistryError."""
    try:
        with open(path, "rb") as file:
            document = json.loads(file.read(_MAX_FILE_BYTES) or b"{}")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RegistryError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RegistryError(f"{path} is not valid JSON", hint=f"edit or remove {path}") from error
    return document if isinstance(document, dict) else {}


def _members(document: Mapping[str, object], name: str) -> dict[str, object]:
    found = document.get(name)
    return found if isinstance(found, dict) else {}


def _write(path: str, document: dict[str, object]) -> None:
    """Replace a file, readable by nobody else.  Raises RegistryError."""
    from rootlesspy.image import layout

    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), mode=0o700, exist_ok=True)
        # A link to where the file really is stays one.
        data = light_json.indented(document, "\t").encode()
        layout.write_file(os.path.realpath(path), data + b"\n")
    except OSError as error:
        raise RegistryError(f"cannot write {path}: {error.strerror}") from error


def _from_helper(helper: str, registry: str, environment: Mapping[str, str]) -> Credentials | None:
    """Ask a helper program; None when it knows nothing.  Raises RegistryError."""
    try:
        answer = json.loads(_ask_helper(helper, "get", registry, environment))
        username, secret = answer["Username"], answer["Secret"]
    except NotFound:
        return None
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise RegistryError(f"docker-credential-{helper} gave no credentials") from error
    if not isinstance(username, str) or not isinstance(secret, str) or not secret:
        return None
    if username == "<token>":
        raise RegistryError(
            f"docker-credential-{helper} gave an identity token, which rp does not understand",
            hint=f"rp login {registry}",
        )
    return Credentials(username, secret)


def _ask_helper(helper: str, verb: str, text: str, environment: Mapping[str, str]) -> str:
    """Run docker-credential-HELPER VERB.  Raises NotFound when it knows nothing, RegistryError."""
    import subprocess

    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, verb],
            input=text,
            text=True,
            capture_output=True,
            timeout=_HELPER_TIMEOUT_S,
            env=dict(environment),
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise RegistryError(f"cannot run {program}: {error}", hint=f"which {program}") from error
    if done.returncode == 0:
        return done.stdout
    words = (done.stdout.strip() or done.stderr.strip())[:200]
    if _ABSENT in words:
        raise NotFound(words)
    raise RegistryError(f"{program} {verb} failed: {words}")


def _decoded(path: str, entry: object) -> Credentials | None:
    text = entry.get("auth") if isinstance(entry, dict) else None
    if not isinstance(text, str) or not text:
        # The credentials lie with a helper program.
        return None
    try:
        pair = binascii.a2b_base64(text, strict_mode=True).decode("utf-8")
    except (binascii.Error, ValueError) as error:
        raise RegistryError(f"{path} holds an auth entry that is not base64") from error
    username, colon, password = pair.partition(":")
    if not colon:
        raise RegistryError(f"{path} holds an auth entry that is not user:password")
    return Credentials(username, password.rstrip("\0"))
